// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/program_file.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <dirent.h>
#include <fcntl.h>
#include <memory>
#include <string_view>
#include <sys/stat.h>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "sys/elf.hpp"
#include "sys/mapping_watch.hpp"

namespace netctl::trace {

namespace {

#if defined(__x86_64__)
constexpr std::string_view triplet = "x86_64-linux-gnu";
#elif defined(__aarch64__)
constexpr std::string_view triplet = "aarch64-linux-gnu";
#endif

Result<ProgramFile> as_file(Fd file, std::string path) {
    struct stat about {};
    if (fstat(file.get(), &about) != 0)
        return Error::system(errno, fmt::format("cannot look at {}", path));
    if (!S_ISREG(about.st_mode))
        return Error::failed(fmt::format("{} is no file", path));
    return ProgramFile{std::move(file), std::move(path), about.st_dev, about.st_ino};
}

Result<ProgramFile> open_path(const std::string& path) {
    Fd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
    if (!file)
        return Error::system(errno, fmt::format("cannot open {}", path));
    return as_file(std::move(file), path);
}

/// Whether `file` is what somebody means who says `name`: libc.so.6, libc-2.31.so.
bool is_called(std::string_view file, std::string_view name) {
    if (file == name)
        return true;
    const auto is_library = [&](std::string_view rest) {
        return rest.starts_with(".so") || (rest.size() > 4 && rest[0] == '-' && rest[1] >= '0' &&
                                           rest[1] <= '9' && rest.find(".so") != rest.npos);
    };
    if (file.starts_with(name) && is_library(file.substr(name.size())))
        return true;
    return file.starts_with("lib") && file.substr(3).starts_with(name) &&
           is_library(file.substr(3 + name.size()));
}

/// The files of a directory that are called so, each once whatever links to it.
void add_libraries(const std::string& directory, std::string_view name,
                   std::vector<ProgramFile>& found) {
    const std::unique_ptr<DIR, int (*)(DIR*)> open(opendir(directory.c_str()), closedir);
    if (!open)
        return;
    std::vector<std::string> names;
    while (const dirent* entry = readdir(open.get()))
        if (is_called(entry->d_name, name))
            names.emplace_back(entry->d_name);
    std::sort(names.begin(), names.end());
    for (const std::string& one : names) {
        auto file = open_path(fmt::format("{}/{}", directory, one));
        if (!file || !sys::is_own_kind(file->file.get()))
            continue;
        if (std::none_of(found.begin(), found.end(), [&](const ProgramFile& other) {
                return other.inode == file->inode && other.device == file->device;
            }))
            found.push_back(std::move(*file));
    }
}

std::vector<ProgramFile> libraries(const std::string& name) {
    std::vector<ProgramFile> found;
    for (const std::string& directory :
         {fmt::format("/usr/local/lib/{}", triplet), std::string("/usr/local/lib"),
          fmt::format("/usr/lib/{}", triplet), fmt::format("/lib/{}", triplet),
          std::string("/usr/lib64"), std::string("/lib64"), std::string("/usr/lib"),
          std::string("/lib")})
        add_libraries(directory, name, found);
    return found;
}

Result<ProgramFile> mapped(const std::string& name, std::uint32_t pid) {
    if (name.empty()) {
        Fd program(open(fmt::format("/proc/{}/exe", pid).c_str(), O_RDONLY | O_CLOEXEC));
        if (!program)
            return Error::system(errno, fmt::format("cannot open the program of process {}", pid));
        std::array<char, 4096> path{};
        const ssize_t size =
            readlink(fmt::format("/proc/{}/exe", pid).c_str(), path.data(), path.size());
        return as_file(std::move(program),
                       std::string(path.data(), size < 0 ? 0 : static_cast<std::size_t>(size)));
    }
    for (const sys::Mapping& mapping : sys::executable_mappings(pid)) {
        const std::string_view path = mapping.path;
        if (path != name && !is_called(path.substr(path.rfind('/') + 1), name))
            continue;
        if (auto file = open_program_file(mapping))
            return file;
    }
    return Error::failed(fmt::format("process {} has no '{}' mapped", pid, name));
}

} // namespace

Result<ProgramFile> open_program_file(const sys::Mapping& mapping) {
    Fd file = sys::open_mapped(mapping);
    if (!file)
        return Error::failed(
            fmt::format("cannot open {}, which process {} has mapped", mapping.path, mapping.pid));
    return as_file(std::move(file), mapping.path);
}

Result<ProgramFile> find_program_file(const std::string& name, std::uint32_t pid) {
    if (name.empty() && pid == 0)
        return Error::usage("a program or a library is to be named",
                            "FILE:NAME; without FILE it is the program of --pid");
    if (pid != 0) {
        auto file = mapped(name, pid);
        if (file || name.empty())
            return file;
    }
    if (name.find('/') != name.npos)
        return open_path(name);
    const char* directories = std::getenv("PATH");
    std::string_view rest = directories ? directories : "/usr/sbin:/usr/bin:/sbin:/bin";
    while (!rest.empty()) {
        const std::string_view directory = rest.substr(0, rest.find(':'));
        rest.remove_prefix(std::min(rest.size(), directory.size() + 1));
        if (directory.empty())
            continue;
        if (auto file = open_path(fmt::format("{}/{}", directory, name)))
            return file;
    }
    std::vector<ProgramFile> found = libraries(name);
    if (found.empty())
        return Error::failed(
            fmt::format("there is no program '{}' in PATH, and no such library", name),
            "a path names any file: ./program, /opt/lib/libx.so");
    if (found.size() > 1) {
        std::string all;
        for (const ProgramFile& one : found)
            all += (all.empty() ? "" : ", ") + one.path;
        return Error::failed(fmt::format("'{}' names several files: {}", name, all),
                             "name one of them by its path");
    }
    return std::move(found.front());
}

} // namespace netctl::trace
