// SPDX-License-Identifier: GPL-2.0-only
#include "sys/text_file.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>
#include <filesystem>
#include <unistd.h>

#include "core/fd.hpp"

namespace netctl::sys {

namespace {

bool is_standard_input(const std::string& path) {
    return path.empty() || path == "-";
}

} // namespace

std::string text_name(const std::string& path) {
    return is_standard_input(path) ? "standard input" : path;
}

Result<std::string> read_text(const std::string& path) {
    const bool standard = is_standard_input(path);
    const std::string what = "cannot read " + text_name(path);
    Fd file;
    if (!standard) {
        file = Fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
        if (!file)
            return Error::system(errno, what);
    }
    std::string text;
    std::array<char, 1 << 16> part;
    for (;;) {
        const ssize_t got = read(standard ? STDIN_FILENO : file.get(), part.data(), part.size());
        if (got == 0)
            return text;
        if (got > 0)
            text.append(part.data(), static_cast<std::size_t>(got));
        else if (errno != EINTR)
            return Error::system(errno, what);
    }
}

Result<std::vector<std::string>> text_files(const std::string& path) {
    namespace fs = std::filesystem;
    std::error_code error;
    if (is_standard_input(path) || !fs::is_directory(path, error))
        return std::vector<std::string>{path};
    std::vector<std::string> files;
    fs::directory_iterator entry(path, error);
    for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
        std::error_code gone; // it is none of the files then
        if (entry->is_regular_file(gone) && !entry->path().filename().string().starts_with('.'))
            files.push_back(entry->path().string());
    }
    if (error)
        return Error::system(error.value(), "cannot read the folder " + path);
    if (files.empty())
        return Error::failed("the folder " + path + " has no files");
    std::sort(files.begin(), files.end());
    return files;
}

} // namespace netctl::sys
