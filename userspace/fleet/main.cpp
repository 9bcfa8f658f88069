// SPDX-License-Identifier: GPL-2.0-only
#include <exception>
#include <fstream>
#include <iterator>
#include <string>

#include "core/command.hpp"
#include "core/command_docs.hpp"
#include "core/log.hpp"
#include "fleet/fleet.hpp"

namespace {

/// netctl's own script, with the words and the names of this program.
std::string fleet_completion(const netctl::Command& root) {
    std::string script = netctl::bash_completion(root);
    for (std::size_t at = 0; (at = script.find("_netctl", at)) != std::string::npos; at += 13)
        script.replace(at, 7, "_netctl_fleet");
    const std::string last = "complete -F _netctl_fleet netctl\n";
    script.replace(script.find(last), last.size(), "complete -F _netctl_fleet netctl-fleet\n");
    return script;
}

} // namespace

int main(int argc, char** argv) {
    using namespace netctl;
    const std::vector<std::string> words(argv + 1, argv + argc);
    set_message_prefix("netctl-fleet");
    try {
        const Command root = fleet::fleet_commands();
        if (words.size() == 2 && words[0] == "generate-man") { // for the build
            std::ifstream file(words[1]);
            const std::string source((std::istreambuf_iterator<char>(file)),
                                     std::istreambuf_iterator<char>());
            print_text(Text::trusted(man_page(source, root, root.name)));
            return finish_output() ? 0 : 1;
        }
        if (words.size() == 1 && words[0] == "generate-completion") {
            print_text(Text::trusted(fleet_completion(root)));
            return finish_output() ? 0 : 1;
        }
        const int status = run_command(root, words);
        const auto written = finish_output();
        if (written)
            return status;
        print_error(written.error());
        return status != 0 ? status : 1;
    } catch (const std::exception& error) { // bad_alloc and the like: nothing of ours throws
        print_error(Error::failed(error.what()));
        return 1;
    }
}
