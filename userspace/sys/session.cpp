// SPDX-License-Identifier: GPL-2.0-only
#include "sys/session.hpp"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <unistd.h>

#include <fmt/format.h>

namespace netctl::sys {

namespace {

std::optional<std::string> variable_of(pid_t process, const std::string& name) {
    std::ifstream file(fmt::format("/proc/{}/environ", process), std::ios::binary);
    for (std::string entry; std::getline(file, entry, '\0');)
        if (entry.starts_with(name + "="))
            return entry.substr(name.size() + 1);
    return std::nullopt;
}

/// The process above; 0 if there is none.
pid_t parent_of(pid_t process) {
    std::ifstream file(fmt::format("/proc/{}/stat", process));
    const std::string text((std::istreambuf_iterator<char>(file)),
                           std::istreambuf_iterator<char>());
    // "PID (NAME) STATE PARENT", and a name may have brackets and blanks in it.
    const std::size_t end = text.rfind(") ");
    return end == std::string::npos ? 0 : std::atoi(text.c_str() + std::min(end + 4, text.size()));
}

} // namespace

std::optional<std::string> inherited_variable(const std::string& name) {
    if (const char* own = std::getenv(name.c_str()))
        return own;
    for (pid_t process = getppid(); process > 1; process = parent_of(process))
        if (auto found = variable_of(process, name))
            return found;
    return std::nullopt;
}

} // namespace netctl::sys
