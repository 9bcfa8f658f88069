// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/http/sealed.hpp"

#include <algorithm>
#include <vector>

#include <fmt/format.h>

#include "core/text.hpp"

namespace netctl::trace {

void SealedConnections::add(const Endpoint& local, const Endpoint& remote, const Process& process) {
    const Key key = key_of(local, remote);
    if (sealed_.contains(key))
        return;
    if (sealed_.size() >= limit) {
        ++beyond_;
        return;
    }
    Who& who = processes_[process.pid];
    if (who.name != process.name || who.why.empty())
        who = {process.name, why_(process.pid)};
    sealed_.emplace(key, who);
    if (processes_.size() > limit)
        processes_.clear();
}

void SealedConnections::decoded(const Endpoint& local, const Endpoint& remote) {
    sealed_.erase(key_of(local, remote));
}

std::string SealedConnections::told(std::size_t most) const {
    std::map<Who, std::size_t> counts;
    for (const auto& [key, who] : sealed_)
        ++counts[who];
    std::vector<std::pair<Who, std::size_t>> order(counts.begin(), counts.end());
    std::stable_sort(order.begin(), order.end(),
                     [](const auto& a, const auto& b) { return a.second > b.second; });
    std::string text;
    for (std::size_t i = 0; i < order.size() && i < most; ++i)
        text += fmt::format("{}{} {}: {}", i == 0 ? "" : "; ", shown(order[i].first.name),
                            order[i].second, order[i].first.why);
    if (order.size() > most)
        text += "; and others";
    return text;
}

} // namespace netctl::trace
