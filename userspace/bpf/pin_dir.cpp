// SPDX-License-Identifier: GPL-2.0-only
#include "bpf/pin_dir.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <dirent.h>
#include <fcntl.h>
#include <filesystem>
#include <linux/magic.h>
#include <memory>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <fmt/format.h>

namespace netctl::bpf {

namespace {

constexpr std::string_view default_bpffs = "/sys/fs/bpf";

Result<Fd> lock(const std::string& directory, int operation) {
    Fd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd)
        return Error::system(errno, fmt::format("cannot open {}", directory));
    int status = 0;
    do {
        status = flock(fd.get(), operation);
    } while (status != 0 && errno == EINTR);
    if (status != 0)
        return Error::system(errno, fmt::format("cannot lock {}", directory));
    return fd;
}

} // namespace

std::string encode_pin_name(std::string_view name) {
    std::string text;
    for (const char c : name) {
        const bool plain =
            c > ' ' && c < 0x7f && c != '.' && c != '%' && c != '/' && c != '~' && c != ':';
        text += plain
                    ? std::string(1, c)
                    : fmt::format("%{:02x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
    }
    return text;
}

std::string decode_pin_name(std::string_view name) {
    std::string text;
    for (std::size_t i = 0; i < name.size(); i++) {
        unsigned value = 0;
        if (name[i] == '%' && i + 2 < name.size() &&
            std::sscanf(std::string(name.substr(i + 1, 2)).c_str(), "%2x", &value) == 1) {
            text += static_cast<char>(value);
            i += 2;
        } else {
            text += name[i];
        }
    }
    return text;
}

bool in_bpffs(const std::string& path) {
    struct statfs info {};
    return statfs(path.c_str(), &info) == 0 &&
           static_cast<unsigned long>(info.f_type) == BPF_FS_MAGIC;
}

Result<std::string> ensure_bpffs(const std::string& path) {
    std::filesystem::path existing(path);
    std::error_code ignored;
    while (!existing.empty() && existing != existing.root_path() &&
           !std::filesystem::exists(existing, ignored))
        existing = existing.parent_path();
    if (in_bpffs(existing.string()))
        return std::string();

    const bool below_default =
        path == default_bpffs || path.starts_with(std::string(default_bpffs) + "/");
    const std::string target = below_default ? std::string(default_bpffs) : path;
    if (!below_default) {
        std::error_code code;
        std::filesystem::create_directories(target, code);
        if (code)
            return Error::system(code.value(), fmt::format("cannot make {}", target));
    }
    if (mount("bpf", target.c_str(), "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RELATIME,
              "mode=0700") != 0)
        return Error::system(errno,
                             fmt::format("no bpffs is mounted at {}, and mounting failed", target),
                             errno == EPERM ? "run as root" : "");
    return target;
}

bool PinDir::exists() const {
    struct stat info {};
    return stat(path_.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

bool PinDir::has(const std::string& name) const {
    struct stat info {};
    return stat(path_of(name).c_str(), &info) == 0;
}

Result<> PinDir::create() const {
    for (std::size_t end = path_.find('/', 1);; end = path_.find('/', end + 1)) {
        const std::string part = path_.substr(0, end);
        if (mkdir(part.c_str(), 0700) != 0 && errno != EEXIST)
            return Error::system(errno, fmt::format("cannot make {}", part));
        if (end == std::string::npos)
            return {};
    }
}

std::vector<std::string> PinDir::list() const {
    std::vector<std::string> names;
    const auto close = [](DIR* directory) { closedir(directory); };
    const std::unique_ptr<DIR, decltype(close)> directory(opendir(path_.c_str()), close);
    if (!directory)
        return names;
    while (const dirent* entry = readdir(directory.get())) {
        const std::string name = entry->d_name;
        if (name != "." && name != "..")
            names.push_back(name);
    }
    std::sort(names.begin(), names.end());
    return names;
}

Result<> PinDir::replace(const std::string& name, const RawMap& map) const {
    const std::string aside = name + "~new";
    NETCTL_TRY(unpin(aside)); // left by a writer that was killed
    NETCTL_TRY(map.pin(path_of(aside)));
    return rename(aside, name);
}

Result<> PinDir::replace(const std::string& name, const Program& program) const {
    const std::string aside = name + "~new";
    NETCTL_TRY(unpin(aside));
    NETCTL_TRY(program.pin(path_of(aside)));
    return rename(aside, name);
}

Result<> PinDir::rename(const std::string& from, const std::string& to) const {
    if (::rename(path_of(from).c_str(), path_of(to).c_str()) != 0)
        return Error::system(errno, fmt::format("cannot rename {} to {}", path_of(from), to));
    return {};
}

Result<> PinDir::unpin(const std::string& name) const {
    if (unlink(path_of(name).c_str()) != 0 && errno != ENOENT)
        return Error::system(errno, fmt::format("cannot remove {}", path_of(name)));
    return {};
}

Result<> PinDir::remove_all() const {
    for (const std::string& name : list()) {
        const PinDir below = sub(name);
        if (below.exists()) {
            NETCTL_TRY(below.remove_all());
        } else {
            NETCTL_TRY(unpin(name));
        }
    }
    if (rmdir(path_.c_str()) != 0 && errno != ENOENT)
        return Error::system(errno, fmt::format("cannot remove {}", path_));
    return {};
}

void PinDir::remove_if_empty() const {
    rmdir(path_.c_str());
}

Result<DirLock> DirLock::acquire(const std::string& directory) {
    return DirLock(NETCTL_TRY(lock(directory, LOCK_EX)));
}

Result<DirLock> DirLock::try_acquire(const std::string& directory) {
    return DirLock(NETCTL_TRY(lock(directory, LOCK_EX | LOCK_NB)));
}

bool DirLock::still_at(const std::string& directory) const {
    struct stat locked {};
    struct stat present {};
    return fstat(fd_.get(), &locked) == 0 && stat(directory.c_str(), &present) == 0 &&
           locked.st_dev == present.st_dev && locked.st_ino == present.st_ino;
}

} // namespace netctl::bpf
