// SPDX-License-Identifier: GPL-2.0-only
#include "host/saved.hpp"

#include <cerrno>
#include <filesystem>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host/apply.hpp"
#include "sys/replace_file.hpp"

namespace netctl::host {

Result<> write_saved(const std::string& path, const std::string& text) {
    const std::string folder = std::filesystem::path(path).parent_path().string();
    const bool made = !folder.empty() && mkdir(folder.c_str(), 0755) == 0;
    if (!folder.empty() && !made && errno != EEXIST)
        return Error::system(errno, Text::format("cannot make {}", folder));
    auto written = sys::replace_file(path, text, 0600);
    if (!written && made)
        rmdir(folder.c_str());
    return written;
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
