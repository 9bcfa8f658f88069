// SPDX-License-Identifier: GPL-2.0-only
#include "classifier/prefix_forest.hpp"

#include <algorithm>

namespace netctl::classifier {

bool TrieKey::agrees(const TrieKey& other, unsigned length) const {
    if (length == 0)
        return true;
    if (length <= 64)
        return (high ^ other.high) >> (64 - length) == 0;
    return high == other.high &&
           (length >= 128 ? low == other.low : (low ^ other.low) >> (128 - length) == 0);
}

std::uint32_t TrieKey::bits(unsigned from, unsigned count) const {
    if (count == 0)
        return 0;
    std::uint64_t left = from >= 64  ? low << (from - 64)
                         : from == 0 ? high
                                     : high << from | low >> (64 - from);
    return static_cast<std::uint32_t>(left >> (64 - count));
}

TrieKey TrieKey::of(const Address& address) {
    TrieKey key;
    for (unsigned i = 0; i < 8; ++i) {
        key.high = key.high << 8 | address.bytes[i];
        key.low = key.low << 8 | address.bytes[i + 8];
    }
    return key;
}

void PrefixForest::build() {
    // A family that is named at all has its root, where its other addresses go.
    for (Family family : {Family::ipv4, Family::ipv6})
        if (std::ranges::any_of(prefixes_, [family](const Prefix& prefix) {
                return prefix.address.family == family;
            }))
            prefixes_.push_back({{family, {}}, 0});
    // Prefixes order by family, address, length: a preorder of the tree.
    std::ranges::sort(prefixes_);
    prefixes_.erase(std::unique(prefixes_.begin(), prefixes_.end()), prefixes_.end());

    nodes_.assign(1, {});
    std::vector<std::uint32_t> open{any};
    for (const Prefix& prefix : prefixes_) {
        TrieKey key = TrieKey::of(prefix.address);
        auto encloses = [&](std::uint32_t node) {
            const Prefix& outer = nodes_[node].prefix;
            return node == any || (outer.address.family == prefix.address.family &&
                                   key.agrees(nodes_[node].key, outer.length));
        };
        for (; !encloses(open.back()); open.pop_back())
            nodes_[open.back()].end = size();
        nodes_.push_back({prefix, key, open.back(), 0});
        open.push_back(size() - 1);
    }
    for (std::uint32_t node : open)
        nodes_[node].end = size();
}

std::uint32_t PrefixForest::find(const Prefix& prefix) const {
    auto found =
        std::lower_bound(nodes_.begin() + 1, nodes_.end(), prefix,
                         [](const Node& node, const Prefix& p) { return node.prefix < p; });
    return static_cast<std::uint32_t>(found - nodes_.begin());
}

std::uint32_t PrefixForest::root(Family family) const {
    std::uint32_t node = find({{family, {}}, 0});
    return node < size() && nodes_[node].prefix == Prefix{{family, {}}, 0} ? node : any;
}

} // namespace netctl::classifier
