// SPDX-License-Identifier: GPL-2.0-only
#include "core/command.hpp"

#include <random>

#include <gtest/gtest.h>

#include "core/command_docs.hpp"

namespace netctl {
namespace {

using Count = Positional::Count;

Command table() {
    const Handler run = [](const Arguments&, Context&) { return Result<int>(0); };
    return {.name = "netctl",
            .summary = "test",
            .children = {
                {.name = "xdp",
                 .summary = "packets",
                 .children = {{.name = "attach",
                               .summary = "attach it",
                               .positionals = {{"IFACE"}},
                               .options = {{"mode", "auto|native", "where", {"auto", "native"}},
                                           {"rate", "N", "how many", {}},
                                           {"replace", "", "take it", {}}},
                               .run = run},
                              {.name = "rule",
                               .summary = "rules",
                               .positionals = {{"IFACE"}, {"RULE", Count::rest}},
                               .run = run},
                              {.name = "status",
                               .summary = "show",
                               .positionals = {{"IFACE", Count::optional}},
                               .run = run}}}}};
}

std::string error_of(const std::vector<std::string>& words) {
    static const Command root = table();
    const auto parsed = parse_command(root, words);
    return parsed ? "" : parsed.error().what;
}

TEST(Command, OptionsMayStandAnywhere) {
    const Command root = table();
    for (const std::vector<std::string>& words :
         {std::vector<std::string>{"--root", "/r", "xdp", "attach", "eth0", "--mode", "native"},
          {"xdp", "--root=/r", "attach", "--mode=native", "eth0"},
          {"xdp", "attach", "--mode", "native", "eth0", "--root", "/r"}}) {
        const auto parsed = parse_command(root, words);
        ASSERT_TRUE(parsed) << parsed.error().what;
        EXPECT_EQ(parsed->path, "netctl xdp attach");
        EXPECT_EQ(parsed->arguments["IFACE"], "eth0");
        EXPECT_EQ(parsed->arguments.get("mode"), "native");
        EXPECT_EQ(parsed->arguments.get("root"), "/r");
        EXPECT_FALSE(parsed->arguments.has("replace"));
    }
}

TEST(Command, TheRestIsTakenAsItIs) {
    const Command root = table();
    const auto parsed =
        parse_command(root, {"xdp", "rule", "eth0", "src", "10.0.0.0/8", "drop", "--json"});
    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->arguments.rest(), (std::vector<std::string>{"src", "10.0.0.0/8", "drop"}));
    EXPECT_TRUE(parsed->arguments.has("json"));
}

TEST(Command, ErrorsNameWhatWasWrongAndWhatIsNear) {
    EXPECT_EQ(error_of({"xpd"}), "'netctl' has no command 'xpd'; did you mean 'xdp'?");
    EXPECT_EQ(error_of({"xdp", "atach", "e"}),
              "'netctl xdp' has no command 'atach'; did you mean 'attach'?");
    EXPECT_EQ(error_of({"xdp"}), "'netctl xdp' needs a command after it");
    EXPECT_EQ(error_of({"xdp", "attach"}), "IFACE is missing");
    EXPECT_EQ(error_of({"xdp", "attach", "a", "b"}), "'b' is one word too many");
    EXPECT_EQ(error_of({"xdp", "attach", "a", "--mode", "natve"}),
              "--mode takes auto or native, not 'natve'; did you mean 'native'?");
    EXPECT_EQ(error_of({"xdp", "attach", "a", "--moed", "native"}),
              "'netctl xdp attach' has no option '--moed'; did you mean '--mode'?");
    EXPECT_EQ(error_of({"xdp", "attach", "a", "--replace", "--replace"}),
              "--replace is given twice");
}

TEST(Command, WordsAreExact) {
    // A prefix of a word is another word: scripts must not break when a command is added.
    EXPECT_NE(error_of({"xdp", "stat"}), "");
    EXPECT_NE(error_of({"xdp", "attach", "a", "--repl"}), "");
}

TEST(Command, NumbersAreCheckedAgainstTheirRange) {
    const Command root = table();
    for (const char* bad : {"0", "11", "-1", "3x", "", "99999999999999999999999"}) {
        const auto parsed =
            parse_command(root, {"xdp", "attach", "a", std::string("--rate=") + bad});
        if (!parsed)
            continue; // "--rate=" alone is no value
        const auto number = parsed->arguments.number("rate", 5, 1, 10);
        ASSERT_FALSE(number) << bad;
        EXPECT_EQ(number.error().what,
                  std::string("--rate takes a number from 1 to 10, not '") + bad + "'");
    }
    const auto parsed = parse_command(root, {"xdp", "attach", "a", "--rate", "7"});
    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->arguments.number("rate", 5, 1, 10).value_or(0), 7U);
}

TEST(Command, HelpNeedsNothingElse) {
    const Command root = table();
    const auto parsed = parse_command(root, {"xdp", "attach", "--help"});
    ASSERT_TRUE(parsed);
    const std::string text = help_text(*parsed->command, parsed->path);
    EXPECT_NE(text.find("usage: netctl xdp attach IFACE [--mode auto|native] [--rate N] "
                        "[--replace]"),
              std::string::npos);
    for (const Option& option : global_options())
        EXPECT_NE(text.find("--" + option.name), std::string::npos) << option.name;
}

TEST(Command, ManPageAndCompletionHaveEveryCommand) {
    const Command root = table();
    const std::string page =
        man_page(".TH x\n.\\\" SYNOPSIS\n.\\\" COMMANDS\n", root.children[0], "netctl xdp");
    EXPECT_NE(page.find("netctl xdp attach IFACE [\\-\\-mode auto|native]"), std::string::npos);
    EXPECT_NE(page.find("take it."), std::string::npos);
    const std::string completion = bash_completion(root);
    EXPECT_NE(completion.find("'xdp attach') words='--mode --rate --replace' kinds='interfaces'"),
              std::string::npos);
    EXPECT_NE(completion.find("--mode) words='auto native'"), std::string::npos);
}

TEST(Command, MutatedWordsNeverCrash) {
    const Command root = table();
    std::mt19937 random(1);
    const std::vector<std::string> seeds{"xdp",    "attach",  "eth0",   "--mode", "native",
                                         "--json", "--rate",  "7",      "rule",   "src",
                                         "--",     "-v",      "--root", "status", "--netns=x",
                                         "",       "--mode=", "-",      "-vq",    "--rate=9"};
    std::size_t accepted = 0, refused = 0;
    for (int i = 0; i < 10000; i++) {
        std::vector<std::string> words{"xdp", "attach", "eth0", "--mode", "auto"};
        for (unsigned edits = 1 + random() % 4; edits > 0; edits--) {
            const std::size_t at = random() % (words.size() + 1);
            std::string word = seeds[random() % seeds.size()];
            if (random() % 2 != 0 && !word.empty())
                word[random() % word.size()] = static_cast<char>(random());
            if (random() % 2 != 0 && at < words.size())
                words[at] = word;
            else
                words.insert(words.begin() + static_cast<std::ptrdiff_t>(at), word);
        }
        const auto parsed = parse_command(root, words);
        parsed ? accepted++ : refused++;
        if (!parsed) {
            EXPECT_FALSE(parsed.error().what.empty());
        }
    }
    // Both happen, or the mutations are no test.
    EXPECT_GT(accepted, 100U);
    EXPECT_GT(refused, 100U);
}

} // namespace
} // namespace netctl
