// SPDX-License-Identifier: GPL-2.0-only
//
// Typed access to a BPF map.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "core/fd.hpp"
#include "core/result.hpp"

namespace netctl::bpf {

struct MapInfo {
    std::uint32_t id = 0;
    std::uint32_t type = 0;
    std::uint32_t key_size = 0;
    std::uint32_t value_size = 0;
    std::uint32_t max_entries = 0;
    std::uint32_t flags = 0;
    std::string name;
};

/// Number of CPUs that per-CPU maps have values for.
unsigned possible_cpus();

Result<MapInfo> map_info(int fd);

/// Keys of a map, in the order of their bytes.
class MapKeys {
  public:
    auto begin() const { return keys_.begin(); }
    auto end() const { return keys_.end(); }
    std::size_t size() const { return keys_.size(); }

  private:
    friend class RawMap;
    std::vector<std::uint8_t> bytes_;
    std::vector<const std::uint8_t*> keys_;
};

/// Untyped map operations; sizes are the caller's duty. `name` is for errors.
class RawMap {
  public:
    RawMap() = default;
    RawMap(Fd fd, std::string name) : fd_(std::move(fd)), name_(std::move(name)) {}
    /// What is pinned is opened by PinDir::open_map().
    static Result<RawMap> open_id(std::uint32_t id);

    int fd() const { return fd_.get(); }
    const std::string& name() const { return name_; }
    explicit operator bool() const { return static_cast<bool>(fd_); }
    Result<RawMap> duplicate() const;

    /// False if there is no such key.
    Result<bool> lookup(const void* key, void* value) const;
    Result<> update(const void* key, const void* value, std::uint64_t flags = 0) const;
    /// Writes many at once where the kernel can, else one by one.
    Result<> update_batch(const void* keys, const void* values, std::uint32_t count,
                          std::size_t key_size, std::size_t value_size) const;
    /// Reads or writes the first `count` values of an array.
    Result<> read_array(void* values, std::size_t value_size, std::uint32_t count) const;
    Result<> write_array(const void* values, std::size_t value_size, std::uint32_t count) const;
    /// False if there was no such key.
    Result<bool> erase(const void* key) const;
    /// False at the end. `key` null starts. Begins anew if `key` was deleted: see keys().
    Result<bool> next_key(const void* key, void* next) const;
    /// Every key that is there all the while, and some of those that come and go, each once.
    /// The error's code is EAGAIN if others delete keys faster than they can be walked.
    Result<MapKeys> keys() const;

  private:
    Fd fd_;
    std::string name_;
};

/// The values of a BPF_F_MMAPABLE array, in memory that is shared with the kernel.
class MappedArray {
  public:
    MappedArray() = default;
    /// All values of the map, to read, or to write as well. The error's code is EACCES or EPERM if the map
    /// was opened to be read.
    static Result<MappedArray> open(const RawMap& map, bool writable);
    MappedArray(MappedArray&& other) noexcept;
    MappedArray& operator=(MappedArray&& other) noexcept;
    ~MappedArray();

    std::span<std::byte> bytes() const { return {static_cast<std::byte*>(memory_), size_}; }

  private:
    void* memory_ = nullptr;
    std::size_t size_ = 0;
};

/// A map whose key and value are ABI structs. Opening compares their sizes with the kernel's, so a
/// map of another ABI is refused; a key with hidden padding does not compile.
template <class K, class V>
    requires std::is_trivially_copyable_v<K> && std::is_trivially_copyable_v<V> &&
        std::has_unique_object_representations_v<K>
class Map {
  public:
    Map() = default;

    /// For a map that is not per CPU.
    static Result<Map> wrap(RawMap raw) {
        const MapInfo info = NETCTL_TRY(map_info(raw.fd()));
        if (info.key_size != sizeof(K) || info.value_size != sizeof(V))
            return Error::failed(
                "map " + raw.name() + " has keys of " + std::to_string(info.key_size) +
                    " and values of " + std::to_string(info.value_size) + " bytes, not " +
                    std::to_string(sizeof(K)) + " and " + std::to_string(sizeof(V)),
                "it was made by another version of netctl");
        return Map(std::move(raw));
    }

    const RawMap& raw() const { return raw_; }
    explicit operator bool() const { return static_cast<bool>(raw_); }

    Result<std::optional<V>> lookup(const K& key) const {
        V value{};
        if (!NETCTL_TRY(raw_.lookup(&key, &value)))
            return std::optional<V>();
        return std::optional<V>(value);
    }
    Result<> update(const K& key, const V& value, std::uint64_t flags = 0) const {
        return raw_.update(&key, &value, flags);
    }
    Result<bool> erase(const K& key) const { return raw_.erase(&key); }

    /// The key behind `key`, or the first one.
    Result<std::optional<K>> next(const std::optional<K>& key) const {
        K following{};
        if (!NETCTL_TRY(raw_.next_key(key ? &*key : nullptr, &following)))
            return std::optional<K>();
        return std::optional<K>(following);
    }

  private:
    explicit Map(RawMap raw) : raw_(std::move(raw)) {}
    RawMap raw_;
};

/// The values of one key of a per-CPU map, one a CPU. V's size must be a multiple of eight.
template <class K, class V> Result<std::vector<V>> lookup_per_cpu(const RawMap& map, const K& key) {
    static_assert(sizeof(V) % 8 == 0, "per-CPU values lie eight-byte aligned");
    std::vector<V> values(possible_cpus());
    if (!NETCTL_TRY(map.lookup(&key, values.data())))
        return Error::failed("map " + map.name() + " has no such entry");
    return values;
}

} // namespace netctl::bpf
