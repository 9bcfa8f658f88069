// SPDX-License-Identifier: GPL-2.0-only
//
// Containers of the rule compiler: hash-consed sequences and fixed-size bit sets.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

namespace netctl::classifier {

/// Gives equal sequences the same number, counted from 0 in order of first appearance. Everything
/// that the compiler shares goes through one: trie nodes, rule lists, classes. Comparison is exact;
/// the hash only says where to look.
template <class T> class SequencePool {
  public:
    /// A span into the pool is valid until the next `intern()`.
    std::span<const T> operator[](std::uint32_t id) const {
        return {items_.data() + starts_[id], starts_[id + 1] - starts_[id]};
    }
    std::uint32_t size() const { return static_cast<std::uint32_t>(starts_.size() - 1); }
    /// Length of all sequences together.
    std::size_t items() const { return items_.size(); }

    /// `sequence` must not lie in the pool itself.
    std::uint32_t intern(std::span<const T> sequence) {
        if ((size() + 1) * 2 > slots_.size())
            grow();
        const std::uint32_t hash = hash_of(sequence);
        const std::size_t slot = slot_of(sequence, hash);
        if (slots_[slot] != free_slot)
            return slots_[slot];
        slots_[slot] = size();
        hashes_.push_back(hash);
        items_.insert(items_.end(), sequence.begin(), sequence.end());
        starts_.push_back(items_.size());
        return slots_[slot];
    }

    /// The number of a sequence that is there already, or `none`.
    static constexpr std::uint32_t none = ~0u;
    std::uint32_t find(std::span<const T> sequence) const {
        return slots_.empty() ? none : slots_[slot_of(sequence, hash_of(sequence))];
    }

  private:
    static constexpr std::uint32_t free_slot = none;

    /// Where it stands, or the free slot where it would.
    std::size_t slot_of(std::span<const T> sequence, std::uint32_t hash) const {
        std::size_t slot = hash & (slots_.size() - 1);
        while (slots_[slot] != free_slot &&
               (hashes_[slots_[slot]] != hash || !same((*this)[slots_[slot]], sequence)))
            slot = (slot + 1) & (slots_.size() - 1);
        return slot;
    }

    static bool same(std::span<const T> a, std::span<const T> b) {
        static_assert(std::has_unique_object_representations_v<T>);
        return a.size() == b.size() &&
               (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
    }

    static std::uint32_t hash_of(std::span<const T> sequence) {
        // Two words at a time in two chains: one would wait for each multiplication.
        const std::span<const std::byte> bytes = std::as_bytes(sequence);
        std::uint64_t a = bytes.size(), b = ~a;
        std::size_t i = 0;
        for (; i + 16 <= bytes.size(); i += 16) {
            a = std::rotl(a ^ word(bytes.data() + i, 8), 29) * 0x9e3779b97f4a7c15ull;
            b = std::rotl(b ^ word(bytes.data() + i + 8, 8), 31) * 0xbf58476d1ce4e5b9ull;
        }
        for (; i < bytes.size(); i += std::min<std::size_t>(8, bytes.size() - i))
            a = std::rotl(a ^ word(bytes.data() + i, std::min<std::size_t>(8, bytes.size() - i)),
                          29) *
                0x9e3779b97f4a7c15ull;
        a ^= std::rotl(b, 17);
        a = (a ^ a >> 32) * 0x94d049bb133111ebull;
        return static_cast<std::uint32_t>(a >> 32);
    }
    static std::uint64_t word(const std::byte* at, std::size_t size) {
        std::uint64_t word = 0;
        std::memcpy(&word, at, size);
        return word;
    }
    void grow() {
        slots_.assign(std::max<std::size_t>(64, slots_.size() * 2), free_slot);
        for (std::uint32_t id = 0; id < size(); ++id) {
            std::size_t slot = hashes_[id] & (slots_.size() - 1);
            while (slots_[slot] != free_slot)
                slot = (slot + 1) & (slots_.size() - 1);
            slots_[slot] = id;
        }
    }

    std::vector<T> items_;
    std::vector<std::size_t> starts_{0};
    std::vector<std::uint32_t> hashes_;
    std::vector<std::uint32_t> slots_; ///< open addressing, a power of two of them
};

/// A set of small numbers below a bound that the user keeps in mind: sets that meet in an
/// operation have the same bound.
class BitSet {
  public:
    BitSet() = default;
    explicit BitSet(std::size_t bound) : words_((bound + 63) / 64) {}
    explicit BitSet(std::span<const std::uint64_t> words) : words_(words.begin(), words.end()) {}

    void set(std::size_t i) { words_[i / 64] |= 1ull << i % 64; }
    void flip(std::size_t i) { words_[i / 64] ^= 1ull << i % 64; }
    bool test(std::size_t i) const { return words_[i / 64] >> i % 64 & 1; }
    std::span<const std::uint64_t> words() const { return words_; }

    bool empty() const {
        return std::ranges::all_of(words_, [](std::uint64_t word) { return word == 0; });
    }
    bool within(const BitSet& other) const {
        for (std::size_t i = 0; i < words_.size(); ++i)
            if (words_[i] & ~other.words_[i])
                return false;
        return true;
    }
    BitSet& operator|=(const BitSet& other) {
        for (std::size_t i = 0; i < words_.size(); ++i)
            words_[i] |= other.words_[i];
        return *this;
    }
    BitSet& operator&=(const BitSet& other) {
        for (std::size_t i = 0; i < words_.size(); ++i)
            words_[i] &= other.words_[i];
        return *this;
    }
    /// Becomes what both have; keeps its memory.
    void assign_common(std::span<const std::uint64_t> a, std::span<const std::uint64_t> b) {
        for (std::size_t i = 0; i < words_.size(); ++i)
            words_[i] = a[i] & b[i];
    }
    /// Loses the members from `end` on.
    void cut(std::size_t end) {
        if (end / 64 >= words_.size())
            return;
        words_[end / 64] &= (1ull << end % 64) - 1;
        std::fill(words_.begin() + static_cast<std::ptrdiff_t>(end / 64) + 1, words_.end(), 0);
    }
    /// Calls `visit(i)` for what both have.
    template <class Visit> void each_common(const BitSet& other, Visit visit) const {
        for (std::size_t i = 0; i < words_.size(); ++i)
            for (std::uint64_t word = words_[i] & other.words_[i]; word; word &= word - 1)
                visit(static_cast<std::uint32_t>(i * 64 + std::countr_zero(word)));
    }
    /// Calls `visit(i)` for the members in ascending order.
    template <class Visit> void each(Visit visit) const { each_in(words_, visit); }
    template <class Visit> static void each_in(std::span<const std::uint64_t> words, Visit visit) {
        for (std::size_t i = 0; i < words.size(); ++i)
            for (std::uint64_t word = words[i]; word; word &= word - 1)
                visit(static_cast<std::uint32_t>(i * 64 + std::countr_zero(word)));
    }

  private:
    std::vector<std::uint64_t> words_;
};

} // namespace netctl::classifier
