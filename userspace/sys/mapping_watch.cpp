// SPDX-License-Identifier: GPL-2.0-only
#include "sys/mapping_watch.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <dirent.h>
#include <fcntl.h>
#include <fstream>
#include <linux/perf_event.h>
#include <memory>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <fmt/format.h>

namespace netctl::sys {

namespace {

constexpr std::size_t data_pages = 32; // a power of two

std::size_t page_size() {
    static const auto size = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    return size;
}

std::size_t ring_size() {
    return (1 + data_pages) * page_size();
}

} // namespace

std::vector<Mapping> code_mappings(std::uint32_t pid) {
    std::vector<Mapping> mappings;
    std::ifstream file(fmt::format("/proc/{}/maps", pid));
    for (std::string line; std::getline(file, line);) {
        Mapping mapping;
        char rights[5]{};
        unsigned major_number = 0, minor_number = 0;
        unsigned long long begin = 0, end = 0, offset = 0, inode = 0;
        int path = 0;
        if (std::sscanf(line.c_str(), "%llx-%llx %4s %llx %x:%x %llu %n", &begin, &end, rights,
                        &offset, &major_number, &minor_number, &inode, &path) < 7 ||
            rights[2] != 'x')
            continue;
        mapping.pid = pid;
        mapping.begin = begin;
        mapping.end = end;
        mapping.device = makedev(major_number, minor_number);
        mapping.inode = inode;
        mapping.path = line.substr(static_cast<std::size_t>(path));
        mapping.offset = offset;
        mappings.push_back(std::move(mapping));
    }
    return mappings;
}

std::vector<Mapping> executable_mappings(std::uint32_t pid) {
    std::vector<Mapping> mappings = code_mappings(pid);
    std::erase_if(mappings, [](const Mapping& mapping) { return mapping.inode == 0; });
    return mappings;
}

Fd open_mapped(const Mapping& mapping) {
    // The mapped file itself, whatever namespace its name is of; that takes CAP_SYS_ADMIN.
    for (const std::string& path :
         {fmt::format("/proc/{}/map_files/{:x}-{:x}", mapping.pid, mapping.begin, mapping.end),
          fmt::format("/proc/{}/root{}", mapping.pid, mapping.path), mapping.path}) {
        Fd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
        struct stat about {};
        if (file && fstat(file.get(), &about) == 0 && S_ISREG(about.st_mode) &&
            about.st_ino == mapping.inode)
            return file;
    }
    return {};
}

std::vector<std::uint32_t> all_processes() {
    std::vector<std::uint32_t> processes;
    const std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir("/proc"), closedir);
    if (!directory)
        return processes;
    while (const dirent* entry = readdir(directory.get())) {
        const std::string_view name = entry->d_name;
        std::uint32_t pid = 0;
        const auto [end, status] = std::from_chars(name.begin(), name.end(), pid);
        if (status == std::errc{} && end == name.end())
            processes.push_back(pid);
    }
    return processes;
}

MappingWatch::~MappingWatch() {
    for (const Ring& ring : rings_)
        munmap(ring.memory, ring_size());
}

Result<> MappingWatch::start() {
    perf_event_attr attributes{};
    attributes.size = sizeof attributes;
    attributes.type = PERF_TYPE_SOFTWARE;
    attributes.config = PERF_COUNT_SW_DUMMY;
    attributes.mmap = 1;
    attributes.mmap2 = 1;
    attributes.exclude_kernel = 1;
    const long cpus = sysconf(_SC_NPROCESSORS_CONF);
    for (int cpu = 0; cpu < cpus; ++cpu) {
        Ring ring{Fd(static_cast<int>(syscall(SYS_perf_event_open, &attributes, -1, cpu, -1,
                                              PERF_FLAG_FD_CLOEXEC))),
                  nullptr};
        if (!ring.fd && errno == ENODEV)
            continue; // that CPU is off
        if (!ring.fd)
            return Error::system(errno, "cannot watch what processes map");
        void* memory =
            mmap(nullptr, ring_size(), PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd.get(), 0);
        if (memory == MAP_FAILED)
            return Error::system(errno, "cannot watch what processes map");
        ring.memory = static_cast<std::byte*>(memory);
        rings_.push_back(std::move(ring));
    }
    return {};
}

bool MappingWatch::read(const std::function<void(const Mapping&)>& handler) {
    bool whole = true;
    const std::size_t size = data_pages * page_size();
    // The record as perf_event_open(2) has it, behind its header.
    struct Event {
        std::uint32_t pid, tid;
        std::uint64_t address, length, offset;
        std::uint32_t major_number, minor_number;
        std::uint64_t inode, generation;
        std::uint32_t protection, flags;
    };
    for (const Ring& ring : rings_) {
        auto* control = reinterpret_cast<perf_event_mmap_page*>(ring.memory);
        const std::byte* data = ring.memory + page_size();
        const std::uint64_t head = __atomic_load_n(&control->data_head, __ATOMIC_ACQUIRE);
        std::uint64_t tail = control->data_tail;
        const auto copy = [&](void* to, std::uint64_t from, std::size_t length) {
            const std::size_t at = from % size, first = std::min(length, size - at);
            std::memcpy(to, data + at, first);
            std::memcpy(static_cast<std::byte*>(to) + first, data, length - first);
        };
        while (tail < head) {
            perf_event_header header;
            copy(&header, tail, sizeof header);
            record_.resize(header.size + 1u);
            copy(record_.data(), tail, header.size);
            record_[header.size] = std::byte{};
            tail += header.size;
            whole &= header.type != PERF_RECORD_LOST;
            if (header.type != PERF_RECORD_MMAP2 || header.size < sizeof header + sizeof(Event))
                continue;
            Event event;
            std::memcpy(&event, record_.data() + sizeof header, sizeof event);
            if (event.inode == 0)
                continue;
            handler({event.pid, event.address, event.address + event.length,
                     makedev(event.major_number, event.minor_number), event.inode,
                     reinterpret_cast<const char*>(record_.data() + sizeof header + sizeof event),
                     event.offset});
        }
        __atomic_store_n(&control->data_tail, tail, __ATOMIC_RELEASE);
    }
    return whole;
}

} // namespace netctl::sys
