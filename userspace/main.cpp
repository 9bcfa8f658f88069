// SPDX-License-Identifier: GPL-2.0-only
#include <algorithm>
#include <exception>
#include <fstream>
#include <iterator>
#include <sstream>

#include <malloc.h>

#include "bpf/object.hpp"
#include "core/command.hpp"
#include "core/command_docs.hpp"
#include "host/command_table.hpp"
#include "host/metrics_table.hpp"

namespace netctl {

namespace {

/// What the build uses to make its man pages and completion from the command table.
int generate(const Command& root, const std::vector<std::string>& words) {
    if (words.size() == 2 && words[1] == "bash-completion") {
        print_text(Text::trusted(bash_completion(root)));
        return 0;
    }
    if (words.size() == 2 && words[1] == "metrics") {
        print_text(Text::trusted(host::metrics_markdown()));
        return 0;
    }
    if (words.size() == 4 && words[1] == "man") {
        std::ifstream file(words[3]);
        const std::string source((std::istreambuf_iterator<char>(file)),
                                 std::istreambuf_iterator<char>());
        // `trace-tcp`: a child's child has a page of its own.
        const Command* at = &root;
        std::string path = "netctl", part;
        for (std::istringstream parts(words[2]); at && std::getline(parts, part, '-');) {
            const auto found = std::find_if(at->children.begin(), at->children.end(),
                                            [&](const Command& one) { return one.name == part; });
            at = found != at->children.end() ? &*found : nullptr;
            path += " " + part;
        }
        if (at) {
            print_text(Text::trusted(man_page(source, *at, path)));
            return 0;
        }
        if (words[2] == "rules") {
            print_text(Text::trusted(rules_page(source)));
            return 0;
        }
        if (words[2] == "netctl") {
            print_text(Text::trusted(man_page(source, root, "netctl")));
            return 0;
        }
    }
    print_error(Error::usage("generate takes 'bash-completion', 'metrics' or 'man NAME FILE'"));
    return 2;
}

} // namespace

} // namespace netctl

int main(int argc, char** argv) {
    // Compiling rules takes and gives back some megabytes many times over: the kernel need not clear
    // the same pages for us each time.
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    mallopt(M_TOP_PAD, 4 << 20);
    const std::vector<std::string> words(argv + 1, argv + argc);
    netctl::bpf::capture_libbpf_messages();
    try {
        const netctl::Command root = netctl::command_table();
        if (!words.empty() && words[0] == "generate")
            return netctl::generate(root, words);
        const int status = netctl::run_command(root, words);
        const auto written = netctl::finish_output();
        if (written)
            return status;
        netctl::print_error(written.error());
        return status != 0 ? status : 1;
    } catch (const std::exception& error) { // bad_alloc and the like: nothing of ours throws
        netctl::print_error(netctl::Error::failed(error.what()));
        return 1;
    }
}
