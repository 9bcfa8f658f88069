// SPDX-License-Identifier: GPL-2.0-only
#include "bpf/map.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <numeric>
#include <sys/mman.h>
#include <utility>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>

namespace netctl::bpf {

unsigned possible_cpus() {
    const int count = libbpf_num_possible_cpus();
    return count > 0 ? static_cast<unsigned>(count) : 1;
}

Result<MapInfo> map_info(int fd) {
    bpf_map_info info{};
    __u32 size = sizeof info;
    if (bpf_map_get_info_by_fd(fd, &info, &size) != 0)
        return Error::system(errno, "cannot read a map's information");
    return MapInfo{info.id,          info.type,      info.key_size, info.value_size,
                   info.max_entries, info.map_flags, info.name};
}

Result<RawMap> RawMap::open_id(std::uint32_t id) {
    Fd fd(bpf_map_get_fd_by_id(id));
    if (!fd)
        return Error::system(errno, fmt::format("cannot open the map with id {}", id));
    return RawMap(std::move(fd), fmt::format("id {}", id));
}

Result<RawMap> RawMap::duplicate() const {
    Fd copy(fcntl(fd_.get(), F_DUPFD_CLOEXEC, 0));
    if (!copy)
        return Error::system(errno, fmt::format("cannot duplicate the handle of map {}", name_));
    return RawMap(std::move(copy), name_);
}

Result<bool> RawMap::lookup(const void* key, void* value) const {
    if (bpf_map_lookup_elem(fd_.get(), key, value) == 0)
        return true;
    if (errno == ENOENT)
        return false;
    return Error::system(errno, fmt::format("cannot read map {}", name_));
}

Result<> RawMap::update(const void* key, const void* value, std::uint64_t flags) const {
    if (bpf_map_update_elem(fd_.get(), key, value, flags) == 0)
        return {};
    const int code = errno;
    return Error::system(code, fmt::format("cannot write to map {}", name_),
                         code == E2BIG || code == ENOSPC ? "the map is full" : "");
}

Result<> RawMap::update_batch(const void* keys, const void* values, std::uint32_t count,
                              std::size_t key_size, std::size_t value_size) const {
    std::uint32_t done = 0;
    // Batches of bounded size: the kernel copies each one into memory of its own.
    while (done < count) {
        std::uint32_t step = std::min<std::uint32_t>(count - done, 65536);
        const auto* key = static_cast<const std::byte*>(keys) + done * key_size;
        const auto* value = static_cast<const std::byte*>(values) + done * value_size;
        if (bpf_map_update_batch(fd_.get(), key, value, &step, nullptr) == 0) {
            done += step;
            continue;
        }
        if (errno != ENOTSUP && errno != EOPNOTSUPP && errno != EINVAL)
            return Error::system(errno, fmt::format("cannot write to map {}", name_),
                                 errno == E2BIG || errno == ENOSPC ? "the map is full" : "");
        NETCTL_TRY(update(key, value));
        done++;
    }
    return {};
}

Result<> RawMap::read_array(void* values, std::size_t value_size, std::uint32_t count) const {
    auto* value = static_cast<std::byte*>(values);
    std::uint32_t done = 0, place = 0;
    std::vector<std::uint32_t> keys(count);
    while (done < count) {
        std::uint32_t step = count - done;
        const int status =
            bpf_map_lookup_batch(fd_.get(), done == 0 ? nullptr : &place, &place, keys.data(),
                                 value + done * value_size, &step, nullptr);
        // The end of the map is told as an error, with what was read up to there.
        if (status != 0 && errno != ENOENT)
            break;
        done += step;
        if (status != 0 || step == 0)
            break;
    }
    // What has no batches is read one by one.
    for (std::uint32_t i = done; i < count; i++)
        if (!NETCTL_TRY(lookup(&i, value + i * value_size)))
            return Error::failed(fmt::format("map {} ends at entry {}", name_, i));
    return {};
}

Result<> RawMap::write_array(const void* values, std::size_t value_size,
                             std::uint32_t count) const {
    std::vector<std::uint32_t> keys(count);
    std::iota(keys.begin(), keys.end(), 0);
    return update_batch(keys.data(), values, count, sizeof(std::uint32_t), value_size);
}

Result<bool> RawMap::erase(const void* key) const {
    if (bpf_map_delete_elem(fd_.get(), key) == 0)
        return true;
    if (errno == ENOENT)
        return false;
    return Error::system(errno, fmt::format("cannot delete from map {}", name_));
}

Result<bool> RawMap::next_key(const void* key, void* next) const {
    if (bpf_map_get_next_key(fd_.get(), key, next) == 0)
        return true;
    if (errno == ENOENT)
        return false;
    return Error::system(errno, fmt::format("cannot walk map {}", name_));
}

Result<MapKeys> RawMap::keys() const {
    const MapInfo info = NETCTL_TRY(map_info(fd_.get()));
    const std::size_t size = info.key_size;
    MapKeys keys;
    std::vector<std::uint8_t> key(size), next(size);
    // Whenever the key at which the walk stands is deleted, it begins anew.
    const std::size_t most_steps = 16 * std::size_t{info.max_entries} + 1024;
    std::size_t steps = 0;
    for (bool more = NETCTL_TRY(next_key(nullptr, next.data())); more;
         more = NETCTL_TRY(next_key(key.data(), next.data()))) {
        if (++steps > most_steps)
            return Error::system(EAGAIN, fmt::format("map {} changes while it is read", name_));
        key.swap(next);
        keys.bytes_.insert(keys.bytes_.end(), key.begin(), key.end());
    }
    for (std::size_t i = 0; i < steps; i++)
        keys.keys_.push_back(keys.bytes_.data() + i * size);
    const auto less = [size](const std::uint8_t* a, const std::uint8_t* b) {
        return std::memcmp(a, b, size) < 0;
    };
    const auto same = [size](const std::uint8_t* a, const std::uint8_t* b) {
        return std::memcmp(a, b, size) == 0;
    };
    std::sort(keys.keys_.begin(), keys.keys_.end(), less);
    keys.keys_.erase(std::unique(keys.keys_.begin(), keys.keys_.end(), same), keys.keys_.end());
    return keys;
}

Result<MappedArray> MappedArray::open(const RawMap& map, bool writable) {
    const MapInfo info = NETCTL_TRY(map_info(map.fd()));
    MappedArray array;
    const std::size_t size = std::size_t{info.value_size} * info.max_entries;
    void* memory =
        mmap(nullptr, size, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, map.fd(), 0);
    if (memory == MAP_FAILED)
        return Error::system(errno, fmt::format("cannot map {}", map.name()));
    array.memory_ = memory;
    array.size_ = size;
    return array;
}

MappedArray::MappedArray(MappedArray&& other) noexcept
    : memory_(std::exchange(other.memory_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedArray& MappedArray::operator=(MappedArray&& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(size_, other.size_);
    return *this;
}

MappedArray::~MappedArray() {
    if (memory_)
        munmap(memory_, size_);
}

} // namespace netctl::bpf
