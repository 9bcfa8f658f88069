// SPDX-License-Identifier: GPL-2.0-only
#include "sys/process.hpp"

#include <charconv>
#include <filesystem>
#include <fstream>

#include <fmt/format.h>

#include "sys/cgroup.hpp"

namespace netctl::sys {

namespace {

/// The first number behind a name: `Uid:\t1000\t...`, the real one.
void read_number(const std::string& line, std::string_view name, std::uint32_t& number) {
    if (!line.starts_with(name))
        return;
    const std::size_t begin = line.find_first_of("0123456789");
    if (begin != std::string::npos)
        std::from_chars(line.data() + begin, line.data() + line.size(), number);
}

} // namespace

Result<Process> read_process(pid_t pid) {
    const std::string directory = fmt::format("/proc/{}", pid);
    Process process;
    process.pid = pid;
    process.exe_link = directory + "/exe";
    std::ifstream status(directory + "/status");
    for (std::string line; std::getline(status, line);) {
        read_number(line, "Uid:", process.uid);
        read_number(line, "Gid:", process.gid);
    }
    const auto cgroup = cgroup_of(directory);
    if (!status.eof() || !cgroup)
        return Error::failed(fmt::format("there is no process {}", pid));
    process.cgroup = *cgroup;
    std::getline(std::ifstream(directory + "/comm"), process.name);
    std::error_code unreadable;
    process.exe = std::filesystem::read_symlink(process.exe_link, unreadable).string();
    return process;
}

} // namespace netctl::sys
