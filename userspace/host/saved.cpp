// SPDX-License-Identifier: GPL-2.0-only
#include "host/saved.hpp"

#include <cerrno>
#include <fcntl.h>
#include <filesystem>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "core/fd.hpp"
#include "host/apply.hpp"

namespace netctl::host {

Result<> write_saved(const std::string& path, const std::string& text) {
    const std::string folder = std::filesystem::path(path).parent_path().string();
    if (!folder.empty() && mkdir(folder.c_str(), 0755) != 0 && errno != EEXIST)
        return Error::system(errno, Text::format("cannot make {}", folder));
    const std::string aside = path + ".new";
    (void)unlink(aside.c_str()); // of one that was killed
    const Fd file(open(aside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!file)
        return Error::system(errno, Text::format("cannot make {}", aside));
    const auto fail = [&](const char* what) {
        Error error = Error::system(errno, Text::format("cannot {} {}", what, aside));
        (void)unlink(aside.c_str());
        return error;
    };
    for (std::size_t at = 0; at < text.size();) {
        const ssize_t written = write(file.get(), text.data() + at, text.size() - at);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return fail("write");
        at += static_cast<std::size_t>(written);
    }
    if (fsync(file.get()) != 0)
        return fail("write");
    if (rename(aside.c_str(), path.c_str()) != 0)
        return fail("rename");
    return {};
}

Result<Restored> restore(const HostConfig& config, const RootOptions& root,
                         const std::string& netns) {
    // One object at a time, each an apply of its own. Sets come first, since rules name them.
    std::vector<HostConfig> parts;
    for (const auto& [name, set] : config.sets) {
        parts.emplace_back();
        parts.back().sets.emplace(name, set);
    }
    if (config.policy) {
        parts.emplace_back();
        parts.back().policy = config.policy;
    }
    for (const FilterConfig& filter : config.filters) {
        parts.emplace_back();
        parts.back().filters.push_back(filter);
    }
    if (config.redirect) {
        parts.emplace_back();
        parts.back().redirect = config.redirect;
    }
    Restored restored;
    for (const HostConfig& part : parts) {
        auto applied = apply(part, root, {.netns = netns, .dared = true, .missing_is_fine = true});
        if (!applied) {
            restored.failed.push_back(applied.error().what.string());
            continue;
        }
        for (const Step& step : applied->steps)
            restored.done.push_back(step.title);
        restored.notes.insert(restored.notes.end(), applied->notes.begin(), applied->notes.end());
    }
    return restored;
}

} // namespace netctl::host
