// SPDX-License-Identifier: GPL-2.0-only
#include "bpf/pin_dir.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <dirent.h>
#include <fcntl.h>
#include <functional>
#include <sys/stat.h>

#include <bpf/bpf.h>
#include <fmt/format.h>

#include "bpf/bpffs.hpp"

namespace netctl::bpf {

namespace {

/// Ends the name of a directory that is being taken away with all that is in it. No other name has a `~` but
/// those of pins that are being made.
constexpr std::string_view gone = "~gone";

bool is_gone(std::string_view name) {
    return name.size() > gone.size() && name.substr(name.size() - gone.size()) == gone;
}

bool is_name(const std::string& name) {
    return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos;
}

std::vector<std::string> split(const std::string& path) {
    std::vector<std::string> names;
    for (std::size_t begin = 1; begin < path.size();) {
        const std::size_t end = std::min(path.find('/', begin), path.size());
        names.push_back(path.substr(begin, end - begin));
        begin = end + 1;
    }
    return names;
}

/// Whether nobody but root and us can put something into the directory, or take it away.
Result<> check_owner(const struct stat& info, const std::string& path, bool may_be_sticky) {
    if (info.st_uid != 0 && info.st_uid != geteuid())
        return Error::failed(fmt::format("{} belongs to user {}, and what is in it is not trusted",
                                         path, info.st_uid),
                             "netctl uses only directories of root's, or of the user who runs it: "
                             "remove it, or give "
                             "another --root");
    const bool shared = (info.st_mode & (S_IWGRP | S_IWOTH)) != 0;
    if (shared && !(may_be_sticky && (info.st_mode & S_ISVTX)))
        return Error::failed(
            fmt::format("{} is writable by others (mode {:04o}), and what is in it "
                        "is not trusted",
                        path, info.st_mode & 07777),
            "take that away with chmod go-w, or give another --root");
    return {};
}

/// Names in a directory, sorted; `fd` is used up.
Result<std::vector<std::string>> names_in(Fd fd, const std::string& path) {
    const auto close = [](DIR* directory) { closedir(directory); };
    const std::unique_ptr<DIR, decltype(close)> directory(fdopendir(fd.get()), close);
    if (!directory)
        return Error::system(errno, fmt::format("cannot read {}", path));
    static_cast<void>(fd.release()); // it is the DIR's
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* entry = readdir(directory.get())) {
        const std::string name = entry->d_name;
        if (name != "." && name != "..")
            names.push_back(name);
        errno = 0;
    }
    if (errno != 0)
        return Error::system(errno, fmt::format("cannot read {}", path));
    std::sort(names.begin(), names.end());
    return names;
}

/// Opens a directory in `parent` to read it, if it is on this device.
Result<Fd> open_below(int parent, const std::string& name, const std::string& path, dev_t device) {
    Fd fd(openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    struct stat info {};
    if (!fd || fstat(fd.get(), &info) != 0)
        return Error::system(errno, fmt::format("cannot open {}", path));
    if (info.st_dev != device)
        return Error::failed(fmt::format("{} is the mount of another file system", path),
                             "netctl does not reach into it: unmount it");
    return fd;
}

using VisitDirectory =
    std::function<Result<>(int parent, const std::string& name, const std::string& path)>;

/// Calls `visit` for each directory in the one that `fd`, which is used up, is a descriptor of, and `other`
/// for what else is in it.
Result<> for_each(Fd fd, const std::string& path, const VisitDirectory& visit,
                  const VisitDirectory& other) {
    const Fd parent(fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
    if (!parent)
        return Error::system(errno, fmt::format("cannot duplicate the handle of {}", path));
    for (const std::string& name : NETCTL_TRY(names_in(std::move(fd), path))) {
        struct stat info {};
        if (fstatat(parent.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0)
            continue; // gone by now
        const std::string below = fmt::format("{}/{}", path, name);
        NETCTL_TRY((S_ISDIR(info.st_mode) ? visit : other)(parent.get(), name, below));
    }
    return {};
}

Result<> check_directories(Fd fd, const std::string& path, dev_t device) {
    struct stat info {};
    if (fstat(fd.get(), &info) != 0)
        return Error::system(errno, fmt::format("cannot look at {}", path));
    NETCTL_TRY(check_owner(info, path, false));
    return for_each(
        std::move(fd), path,
        [&](int parent, const std::string& name, const std::string& below) -> Result<> {
            auto opened = open_below(parent, name, below, device);
            if (!opened && opened.error().code == ENOENT)
                return {};
            return check_directories(NETCTL_TRY(std::move(opened)), below, device);
        },
        [](int, const std::string&, const std::string&) -> Result<> { return {}; });
}

/// Removes `name` in `parent` with all below it. Links are removed, not followed.
Result<> remove_tree(int parent, const std::string& name, const std::string& path, dev_t device) {
    auto fd = open_below(parent, name, path, device);
    if (!fd && fd.error().code == ENOENT)
        return {};
    NETCTL_TRY(for_each(
        NETCTL_TRY(std::move(fd)), path,
        [device](int in, const std::string& below_name, const std::string& below) {
            return remove_tree(in, below_name, below, device);
        },
        [](int in, const std::string& below_name, const std::string& below) -> Result<> {
            if (unlinkat(in, below_name.c_str(), 0) != 0 && errno != ENOENT)
                return Error::system(errno, fmt::format("cannot remove {}", below));
            return {};
        }));
    if (unlinkat(parent, name.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT)
        return Error::system(errno, fmt::format("cannot remove {}", path));
    return {};
}

/// The way to a descriptor, or to a name in the directory that it is one of, for system calls that take
/// paths only. BPF_OBJ_PIN takes a descriptor since Linux 6.5.
std::string proc_path(const Fd& fd, const std::string& name = {}) {
    return fmt::format("/proc/self/fd/{}{}{}", fd.get(), name.empty() ? "" : "/", name);
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

Result<PinDir> PinDir::open(const std::string& path) {
    const std::vector<std::string> names = split(path);
    auto base = std::make_shared<Base>();
    Fd at(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!at)
        return Error::system(errno, "cannot open /");
    std::string so_far;
    std::size_t above = 0; // how many names lead to the base
    for (const std::string& name : names) {
        so_far += "/" + name;
        auto next = open_step(at.get(), name, so_far);
        if (!next && next.error().code == ENOENT)
            return PinDir(base, names, names.size(), path); // no bpffs on the way
        at = NETCTL_TRY(std::move(next));
        above++;
        if (!on_bpffs(at.get()))
            continue;
        struct stat info {};
        if (fstat(at.get(), &info) != 0)
            return Error::system(errno, fmt::format("cannot look at {}", so_far));
        NETCTL_TRY(check_owner(info, so_far, above < names.size()));
        base->fd = std::move(at);
        base->device = info.st_dev;
        const std::vector<std::string> below(names.begin() + static_cast<std::ptrdiff_t>(above),
                                             names.end());
        PinDir dir(base, below, below.size(), path);
        const auto walked = dir.walk();
        if (!walked && walked.error().code != ENOENT)
            return Error(walked.error());
        return dir;
    }
    return Error::failed(fmt::format("{} is not in a bpffs", path),
                         "give a directory of a mounted bpffs with --root");
}

PinDir PinDir::absent() const {
    return {std::make_shared<const Base>(), names_, root_, path_};
}

PinDir PinDir::sub(const std::string& name) const {
    PinDir below(*this);
    below.names_.push_back(name);
    below.path_ = path_of(name);
    return below;
}

std::string PinDir::name() const {
    return path_.substr(path_.rfind('/') + 1);
}

std::string PinDir::parent_name() const {
    const std::string parent = path_.substr(0, path_.rfind('/'));
    return parent.substr(parent.rfind('/') + 1);
}

std::string PinDir::path_at(std::size_t depth) const {
    std::string path = path_;
    for (std::size_t i = depth; i < names_.size(); i++)
        path.resize(path.rfind('/'));
    return path;
}

Result<Fd> PinDir::walk(std::size_t depth, Missing missing) const {
    if (!base_->fd)
        return Error::system(ENOENT, fmt::format("cannot open {}", path_));
    Fd at(fcntl(base_->fd.get(), F_DUPFD_CLOEXEC, 0));
    if (!at)
        return Error::system(errno, fmt::format("cannot duplicate the handle of {}", path_));
    for (std::size_t i = 0; i < depth; i++) {
        const std::string path = path_at(i + 1);
        if (!is_name(names_[i]))
            return Error::system(EINVAL, fmt::format("'{}' is no name of a directory", names_[i]));
        auto opened = open_step(at.get(), names_[i], path);
        if (!opened && opened.error().code == ENOENT && missing == Missing::make) {
            if (mkdirat(at.get(), names_[i].c_str(), 0700) != 0 && errno != EEXIST)
                return Error::system(errno, fmt::format("cannot make {}", path));
            opened = open_step(at.get(), names_[i], path);
        }
        Fd next = NETCTL_TRY(std::move(opened));
        struct stat info {};
        if (fstat(next.get(), &info) != 0)
            return Error::system(errno, fmt::format("cannot look at {}", path));
        if (info.st_dev != base_->device)
            return Error::failed(fmt::format("{} is the mount of another file system", path),
                                 "give another --root, or unmount it");
        NETCTL_TRY(check_owner(info, path, i + 1 < root_));
        at = std::move(next);
    }
    return at;
}

bool PinDir::exists() const {
    return walk().has_value();
}

bool PinDir::has(const std::string& name) const {
    return look_for(name).value_or(false);
}

Result<bool> PinDir::look_for(const std::string& name) const {
    const auto dir = walk();
    if (!dir && dir.error().code == ENOENT)
        return false;
    if (!dir)
        return Error(dir.error());
    struct stat info {};
    if (fstatat(dir->get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0)
        return S_ISREG(info.st_mode) || S_ISDIR(info.st_mode);
    if (errno == ENOENT)
        return false;
    return Error::system(errno, fmt::format("cannot look at {}", path_of(name)));
}

Result<> PinDir::check_below() const {
    auto fd = open_directory();
    if (!fd && fd.error().code == ENOENT)
        return {};
    return check_directories(NETCTL_TRY(std::move(fd)), path_, base_->device);
}

Result<> PinDir::create() const {
    NETCTL_TRY(walk(names_.size(), Missing::make));
    return {};
}

Result<Fd> PinDir::open_directory() const {
    const Fd dir = NETCTL_TRY(walk());
    Fd fd(openat(dir.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd)
        return Error::system(errno, fmt::format("cannot open {}", path_));
    return fd;
}

std::vector<std::string> PinDir::list() const {
    return names().value_or({});
}

Result<std::vector<std::string>> PinDir::names() const {
    auto fd = open_directory();
    if (!fd && fd.error().code == ENOENT)
        return std::vector<std::string>();
    std::vector<std::string> names = NETCTL_TRY(names_in(NETCTL_TRY(std::move(fd)), path_));
    std::erase_if(names, is_gone);
    return names;
}

/// A descriptor of the pin itself, which no rename and no link in its place can turn into another.
Result<Fd> PinDir::open_pin(const std::string& name) const {
    const Fd dir = NETCTL_TRY(walk());
    Fd pin(openat(dir.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!pin)
        return Error::system(errno, fmt::format("cannot open {}", path_of(name)));
    struct stat info {};
    if (fstat(pin.get(), &info) != 0 || !S_ISREG(info.st_mode))
        return Error::failed(fmt::format("{} is no pin", path_of(name)));
    return pin;
}

namespace {

/// Opens what is pinned at a descriptor. Errors with errno.
Fd get_pinned(const Fd& pin, __u32 flags) {
    LIBBPF_OPTS(bpf_obj_get_opts, options, .file_flags = flags);
    return Fd(bpf_obj_get_opts(proc_path(pin).c_str(), &options));
}

Error cannot_open(int code, const char* what, const std::string& path) {
    // The pin is there: what is not is /proc.
    return Error::system(code, fmt::format("cannot open the pinned {} {}", what, path),
                         code == ENOENT ? "it is reached through /proc, which has to be mounted"
                                        : "");
}

} // namespace

Result<RawMap> PinDir::open_map(const std::string& name) const {
    const Fd pin = NETCTL_TRY(open_pin(name));
    Fd fd = get_pinned(pin, 0);
    if (!fd && errno == EROFS)
        fd = get_pinned(pin, BPF_F_RDONLY);
    if (!fd)
        return cannot_open(errno, "map", path_of(name));
    return RawMap(std::move(fd), path_of(name));
}

Result<Program> PinDir::open_program(const std::string& name) const {
    const Fd pin = NETCTL_TRY(open_pin(name));
    Fd fd = get_pinned(pin, 0);
    if (!fd && errno == EROFS)
        fd = get_pinned(pin, BPF_F_RDONLY);
    if (!fd)
        return cannot_open(errno, "program", path_of(name));
    return Program(std::move(fd));
}

Result<Link> PinDir::open_link(const std::string& name) const {
    const Fd pin = NETCTL_TRY(open_pin(name));
    Fd fd = get_pinned(pin, 0);
    if (!fd)
        return cannot_open(errno, "link", path_of(name));
    return Link(std::move(fd));
}

Result<> PinDir::pin_fd(const std::string& name, int fd) const {
    const Fd dir = NETCTL_TRY(walk());
    if (!is_name(name))
        return Error::system(EINVAL, fmt::format("'{}' is no name of a pin", name));
    if (bpf_obj_pin(fd, proc_path(dir, name).c_str()) != 0)
        return Error::system(errno, fmt::format("cannot pin {}", path_of(name)));
    return {};
}

Result<> PinDir::replace_fd(const std::string& name, int fd) const {
    const std::string aside = name + "~new";
    NETCTL_TRY(unpin(aside)); // left by a writer that was killed
    NETCTL_TRY(pin_fd(aside, fd));
    auto renamed = rename(aside, name);
    if (!renamed)
        (void)unpin(aside); // what stopped the one is the error to be told
    return renamed;
}

Result<> PinDir::pin(const std::string& name, const RawMap& map) const {
    return pin_fd(name, map.fd());
}

Result<> PinDir::pin(const std::string& name, const Program& program) const {
    return pin_fd(name, program.fd());
}

Result<> PinDir::pin(const std::string& name, const Link& link) const {
    return pin_fd(name, link.fd());
}

Result<> PinDir::replace(const std::string& name, const RawMap& map) const {
    return replace_fd(name, map.fd());
}

Result<> PinDir::replace(const std::string& name, const Program& program) const {
    return replace_fd(name, program.fd());
}

Result<> PinDir::replace(const std::string& name, const Link& link) const {
    return replace_fd(name, link.fd());
}

Result<> PinDir::rename(const std::string& from, const std::string& to) const {
    const Fd dir = NETCTL_TRY(walk());
    if (renameat(dir.get(), from.c_str(), dir.get(), to.c_str()) != 0)
        return Error::system(errno, fmt::format("cannot rename {} to {}", path_of(from), to));
    return {};
}

Result<> PinDir::unpin(const std::string& name) const {
    const auto dir = walk();
    if (!dir && dir.error().code == ENOENT)
        return {};
    if (!dir)
        return Error(dir.error());
    if (unlinkat(dir->get(), name.c_str(), 0) != 0 && errno != ENOENT)
        return Error::system(errno, fmt::format("cannot remove {}", path_of(name)));
    return {};
}

Result<> PinDir::remove_all() const {
    if (names_.size() <= root_)
        return Error::failed(
            fmt::format("the root {} is not removed with all that is in it", path_));
    const auto parent = walk(names_.size() - 1);
    if (!parent && parent.error().code == ENOENT)
        return {};
    if (!parent)
        return Error(parent.error());
    const std::string& name = names_.back();
    if (!is_name(name))
        return {};
    if (auto directory = open_below(parent->get(), name, path_, base_->device); !directory)
        return directory.error().code == ENOENT ? Result<>() : Error(directory.error());
    // An empty directory does not tell whose it was. So that what is left of this one by who is killed, or cannot
    // go on, is found by the next, it has the name first. Where that fails, removing it may not.
    const std::string aside = name + std::string(gone);
    const std::string aside_path = path_ + std::string(gone);
    NETCTL_TRY(remove_tree(parent->get(), aside, aside_path, base_->device));
    if (renameat(parent->get(), name.c_str(), parent->get(), aside.c_str()) != 0)
        return remove_tree(parent->get(), name, path_, base_->device);
    return remove_tree(parent->get(), aside, aside_path, base_->device);
}

Result<> PinDir::sweep() const {
    auto fd = open_directory();
    if (!fd && fd.error().code == ENOENT)
        return {};
    return for_each(
        NETCTL_TRY(std::move(fd)), path_,
        [this](int in, const std::string& name, const std::string& path) {
            return is_gone(name) ? remove_tree(in, name, path, base_->device) : Result<>();
        },
        [](int, const std::string&, const std::string&) -> Result<> { return {}; });
}

Result<> PinDir::remove_empty() const {
    if (names_.empty())
        return {}; // the bpffs itself
    const auto parent = walk(names_.size() - 1);
    if (!parent && parent.error().code == ENOENT)
        return {};
    if (!parent)
        return Error(parent.error());
    if (is_name(names_.back()) &&
        unlinkat(parent->get(), names_.back().c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT &&
        errno != ENOTEMPTY)
        return Error::system(errno, fmt::format("cannot remove {}", path_));
    return {};
}

} // namespace netctl::bpf
