// SPDX-License-Identifier: GPL-2.0-only
#include "core/text.hpp"

#include <random>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/json.hpp"
#include "core/rule_lexer.hpp"

namespace netctl {
namespace {

TEST(Text, ShowsWhatPeopleWriteAndEscapesWhatTerminalsObey) {
    const std::vector<std::pair<std::string, std::string>> rows{
        {"plain text", "plain text"},
        {"Grüße, 名前 👍 e\u0301", "Grüße, 名前 👍 e\u0301"},
        {"back\\slash \"quote\"", "back\\slash \"quote\""},
        {"x\nallow", "x\\x0aallow"},
        {"\x1b[2J\t\r\x7f", "\\x1b[2J\\x09\\x0d\\x7f"},
        {std::string("a\0b", 3), "a\\x00b"},
        {"\u009b2J", "\\xc2\\x9b2J"},                // C1: CSI
        {"\u202etxt.exe", "\\xe2\\x80\\xaetxt.exe"}, // right-to-left override
        {"\u2066a\u2069", "\\xe2\\x81\\xa6a\\xe2\\x81\\xa9"},
        {"\u2028", "\\xe2\\x80\\xa8"},
        {"\ufeffa\u200bb", "\\xef\\xbb\\xbfa\\xe2\\x80\\x8bb"},
        {"\U000e0041", "\\xf3\\xa0\\x81\\x81"},
        {"\xff\xfe", "\\xff\\xfe"},
        {"\xc3", "\\xc3"},
        {"\xe2\xc3\xa4", "\\xe2ä"},
        {"\xc0\xaf", "\\xc0\\xaf"},                   // overlong
        {"\xed\xa0\x80", "\\xed\\xa0\\x80"},          // surrogate
        {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"}, // above U+10FFFF
    };
    for (const auto& [given, wanted] : rows) {
        EXPECT_EQ(shown(given), wanted);
        EXPECT_EQ(shown(wanted), wanted) << "shown twice";
    }
}

std::string random_bytes(std::mt19937& random) {
    static const std::vector<std::string> pieces{
        "a",     " ",      "\"",     "\\", "\n",     "\x1b",       "\x7f",      "\u0085", "\u009b",
        "ä",     "\u202e", "\u2067", "名", "\u0301", "\U0001f44d", "\xff",      "\xe2",   "\x80",
        "\\x0a", "{",      "}",      "#",  ",",      "\xf0\x9f",   "\U000e0001"};
    std::string text;
    for (unsigned i = random() % 12; i-- > 0;)
        text += random() % 8 != 0 ? pieces[random() % pieces.size()]
                                  : std::string(1, static_cast<char>(random() % 255 + 1));
    return text;
}

/// Straight from the definition, with none of the room's own helpers.
bool has_control(const std::string& text) {
    for (std::size_t i = 0; i < text.size(); i++) {
        const auto byte = [&](std::size_t at) {
            return at < text.size() ? static_cast<unsigned char>(text[at]) : 0u;
        };
        if (byte(i) < 0x20 || byte(i) == 0x7f || (byte(i) == 0xc2 && byte(i + 1) < 0xa0))
            return true;
        if (byte(i) == 0xe2 && byte(i + 1) == 0x80 && byte(i + 2) >= 0xaa && byte(i + 2) <= 0xae)
            return true;
        if (byte(i) == 0xe2 && byte(i + 1) == 0x81 && byte(i + 2) >= 0xa6 && byte(i + 2) <= 0xa9)
            return true;
    }
    return false;
}

TEST(Text, RandomBytesAreShownOnceAndReadBackFromQuotesAndJson) {
    std::mt19937 random(1);
    for (int i = 0; i < 20000; i++) {
        const std::string text = random_bytes(random);
        const std::string once = shown(text);
        EXPECT_FALSE(has_control(once)) << once;
        EXPECT_EQ(shown(once), once);

        const std::string in_quotes = rule_quoted(text);
        EXPECT_FALSE(has_control(in_quotes)) << in_quotes;
        EXPECT_EQ(shown(in_quotes), in_quotes);
        const auto tokens = lex_rule(in_quotes);
        ASSERT_TRUE(tokens) << tokens.error().what;
        ASSERT_EQ(tokens->size(), 2u) << in_quotes;
        EXPECT_EQ(tokens->front().text, text) << in_quotes;

        std::string json;
        append_json_string(json, text);
        EXPECT_FALSE(has_control(json)) << json;
        EXPECT_TRUE(Json::accept(json)) << json;
    }
}

TEST(Text, JsonTellsAnyNameFromAnyOther) {
    const auto json = [](std::string_view text) {
        std::string out;
        append_json_string(out, text);
        return out;
    };
    EXPECT_EQ(json("a\"b\\\n"), R"("a\"b\\\u000a")");
    EXPECT_EQ(json("\u009b\u202e\u2028"), R"("\u009b\u202e\u2028")");
    EXPECT_EQ(json("\x9b\xe4"), "\"\\u009bä\""); // read as Latin-1
    EXPECT_EQ(json("\U000e0041"), R"("\udb40\udc41")");
    EXPECT_EQ(Json::parse(json("\U000e0041 ä 👍")), "\U000e0041 ä 👍");
}

TEST(Text, JsonDocumentsAreShownAndMeanTheSame) {
    const Json value{{"n\u009b", "\u202eä\x7f"}, {"list", {"\u2028", 1}}};
    const std::string document = json_shown(value.dump(2));
    EXPECT_EQ(document.find("\u009b"), std::string::npos);
    EXPECT_EQ(document.find("\u202e"), std::string::npos);
    EXPECT_EQ(document.find('\x7f'), std::string::npos);
    EXPECT_NE(document.find("ä"), std::string::npos);
    EXPECT_EQ(Json::parse(document), value);
}

TEST(Text, FormatsOfOursStandAndArgumentsAreShown) {
    const std::string stranger = "x\nallow";
    const char name[16] = "\x1b[31m";
    EXPECT_EQ(Text::format("{}:\n  {} {:>3} {}\n", stranger, name, 7, 'c'),
              "x\\x0aallow:\n  \\x1b[31m   7 c\n");
    const Text lines = Text::format("one\ntwo");
    EXPECT_EQ(Text::format("{}", lines), "one\ntwo");
    const std::vector<std::string> names{"a", "b\n"};
    EXPECT_EQ(Text::format("{}", fmt::join(names, ", ")), "a, b\\x0a");
    EXPECT_EQ(Text(stranger), "x\\x0aallow");
    EXPECT_EQ(Text::format("{:<8}|", "名前"), "名前    |");
}

TEST(Text, ColumnsAreThoseOfATerminal) {
    EXPECT_EQ(columns(""), 0u);
    EXPECT_EQ(columns("abc"), 3u);
    EXPECT_EQ(columns("äö"), 2u);
    EXPECT_EQ(columns("名前"), 4u);
    EXPECT_EQ(columns("e\u0301"), 1u); // combines
    EXPECT_EQ(columns("👍x"), 3u);
}

TEST(Text, IsCutBetweenCharacters) {
    const Text text("aä名前\n");
    EXPECT_EQ(text.first_columns(0), "");
    EXPECT_EQ(text.first_columns(2), "aä");
    EXPECT_EQ(text.first_columns(3), "aä");
    EXPECT_EQ(text.first_columns(4), "aä名");
    EXPECT_EQ(text.first_columns(99), "aä名前\\x0a");
}

TEST(Text, OfSeveralLinesKeepsTheirEndsAndNothingElse) {
    EXPECT_EQ(Text::lines(""), "");
    EXPECT_EQ(Text::lines("one\n\ntwo\x1b[2J"), "one\n\ntwo\\x1b[2J\n");
    EXPECT_EQ(Text::lines("\n"), "\n");
}

} // namespace
} // namespace netctl
