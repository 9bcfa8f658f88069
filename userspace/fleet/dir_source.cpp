// SPDX-License-Identifier: GPL-2.0-only
#include "fleet/dir_source.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <ctime>
#include <fcntl.h>
#include <filesystem>
#include <poll.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "fleet/release.hpp"
#include "sys/replace_file.hpp"

namespace netctl::fleet {

namespace {

// A ConfigMap's `..data` is a link that is moved into place.
constexpr std::uint32_t what_changes = IN_CREATE | IN_MOVED_TO | IN_CLOSE_WRITE | IN_DELETE;

/// What a plain file holds. Links are followed, since a ConfigMap is made of them; a pipe is not waited for.
Result<std::optional<std::string>> read_bounded(const std::string& path, std::size_t most) {
    const auto failed = [&](int code) {
        return Error::system(code, Text::format("cannot read {}", path));
    };
    const Fd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (!file) {
        if (errno == ENOENT)
            return std::optional<std::string>();
        return failed(errno);
    }
    struct stat info {};
    if (fstat(file.get(), &info) != 0)
        return failed(errno);
    if (!S_ISREG(info.st_mode))
        return Error::failed(Text::format("{} is no plain file", path));
    std::string text;
    std::array<char, 1 << 16> part{};
    while (text.size() <= most) {
        const ssize_t got = ::read(file.get(), part.data(), part.size());
        if (got == 0)
            return std::optional(std::move(text));
        if (got > 0)
            text.append(part.data(), static_cast<std::size_t>(got));
        else if (errno != EINTR)
            return failed(errno);
    }
    return Error::failed(Text::format("{} is larger than {} bytes", path, most));
}

} // namespace

std::string body_name(const std::string& sha256) {
    return "body-" + sha256;
}

std::string release_name(std::uint64_t release) {
    return fmt::format("release-{}", release);
}

std::string rollout_name(std::uint64_t release) {
    return fmt::format("rollout-{}", release);
}

Result<DirSource> DirSource::open(const std::string& folder, const std::string& statuses) {
    std::error_code error;
    if (!std::filesystem::is_directory(folder, error))
        return Error::failed(Text::format("{} is no folder", folder),
                             "--dir names the folder that `publish` writes to");
    DirSource source(folder, statuses.empty() ? folder + "/status" : statuses);
    source.changes_ = Fd(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    if (source.changes_)
        inotify_add_watch(source.changes_.get(), folder.c_str(), what_changes);
    return source;
}

void DirSource::watch_statuses() {
    mkdir(statuses_.c_str(), 0755);
    if (changes_)
        inotify_add_watch(changes_.get(), statuses_.c_str(), what_changes);
}

Result<std::optional<std::string>> DirSource::read(const std::string& name, std::size_t most) {
    return read_bounded(folder_ + "/" + name, most);
}

Result<> DirSource::write(const std::string& name, std::string_view bytes) {
    return sys::replace_file(folder_ + "/" + name, bytes, 0644);
}

Result<> DirSource::write_status(const std::string& host, std::string_view text) {
    mkdir(statuses_.c_str(), 0755); // or writing tells what is wrong
    return sys::replace_file(statuses_ + "/" + host + ".json", text, 0644);
}

Result<std::vector<StatusEntry>> DirSource::statuses() {
    std::vector<StatusEntry> entries;
    std::error_code error;
    std::filesystem::directory_iterator file(statuses_, error);
    if (error == std::errc::no_such_file_or_directory)
        return entries;
    for (; !error && file != std::filesystem::directory_iterator(); file.increment(error)) {
        const std::string name = file->path().filename().string();
        if (!name.ends_with(".json") || !is_host_name(name.substr(0, name.size() - 5)))
            continue;
        struct stat info {};
        auto text = read_bounded(file->path().string(), most_status_bytes);
        if (!text.has_value() || !*text || stat(file->path().c_str(), &info) != 0)
            continue; // gone meanwhile, or not a host's
        entries.push_back({name.substr(0, name.size() - 5), std::move(**text),
                           std::max<std::int64_t>(std::time(nullptr) - info.st_mtime, 0)});
    }
    if (error)
        return Error::system(error.value(), Text::format("cannot read the folder {}", statuses_));
    std::ranges::sort(entries, {}, &StatusEntry::host);
    return entries;
}

bool DirSource::wait(unsigned milliseconds) {
    pollfd change{changes_.get(), POLLIN, 0};
    const bool changed = poll(&change, changes_ ? 1 : 0, static_cast<int>(milliseconds)) > 0;
    std::array<char, 4096> events{};
    while (changes_ && ::read(changes_.get(), events.data(), events.size()) > 0)
        ;
    return changed;
}

Result<Fd> DirSource::lock_file(const std::string& name) const {
    const std::string path = fmt::format("{}/.{}.lock", folder_, name);
    Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644));
    if (!file)
        return Error::system(errno, Text::format("cannot open {}", path));
    return file;
}

Result<> DirSource::update(const std::string& name, std::size_t most, const Change& change) {
    const Fd file = NETCTL_TRY(lock_file(name));
    while (flock(file.get(), LOCK_EX) != 0)
        if (errno != EINTR)
            return Error::system(errno, Text::format("cannot lock {} in {}", name, folder_));
    const auto changed = NETCTL_TRY(change(NETCTL_TRY(read(name, most))));
    return changed ? write(name, *changed) : Result<>();
}

Result<Held> DirSource::hold(const std::string& task, const std::string& who) {
    Fd file = NETCTL_TRY(lock_file(task));
    if (flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
        std::array<char, 200> other{};
        const ssize_t got = pread(file.get(), other.data(), other.size(), 0);
        const std::string_view name(other.data(),
                                    static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
        return Error::failed(Text::format("{} is driving the roll-out in {}",
                                          name.empty() ? "somebody else" : name, folder_),
                             "one operator at a time; `rollout` without --follow only looks");
    }
    if (ftruncate(file.get(), 0) != 0 ||
        pwrite(file.get(), who.data(), who.size(), 0) != static_cast<ssize_t>(who.size()))
        return Error::system(errno, Text::format("cannot write who is driving in {}", folder_));
    return Held(std::make_shared<Fd>(std::move(file)));
}

} // namespace netctl::fleet
