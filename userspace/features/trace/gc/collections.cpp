// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/gc/collections.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <span>
#include <string_view>

#include <fmt/format.h>

#include "bpf/uprobe.hpp"
#include "collections.skel.h"
#include "sys/mapping_watch.hpp"
#include "sys/usdt_argument.hpp"

namespace netctl::trace::gc {

namespace {

using Skeleton = bpf::Skeleton<::collections>;

struct Probe {
    const char* provider;
    const char* name;
    nc_gc_probe probe;
    std::size_t arguments; ///< that are read
};
constexpr std::array<Probe, 6> known_probes{{
    {"python", "gc__start", NC_GC_PYTHON_START, 1},
    {"python", "gc__done", NC_GC_PYTHON_DONE, 1},
    {"hotspot", "gc__begin", NC_GC_JAVA_BEGIN, 1},
    {"hotspot", "gc__end", NC_GC_JAVA_END, 0},
    {"hotspot", "mem__pool__gc__begin", NC_GC_POOL_BEGIN, 8},
    {"hotspot", "mem__pool__gc__end", NC_GC_POOL_END, 8},
}};

const Probe* known(const sys::UsdtProbe& probe) {
    const auto* const found =
        std::find_if(known_probes.begin(), known_probes.end(), [&](const Probe& one) {
            return probe.provider == one.provider && probe.name == one.name;
        });
    return found == known_probes.end() ? nullptr : found;
}

bool collects(const usdt::ProbeFile& file) {
    return std::any_of(file.probes.begin(), file.probes.end(),
                       [](const sys::UsdtProbe& probe) { return known(probe) != nullptr; });
}

Result<nc_gc_site> site_of(const Probe& probe, const sys::UsdtProbe& place,
                           const std::string& path) {
    nc_gc_site site{};
    site.probe = probe.probe;
    const auto arguments = sys::parse_usdt_arguments(place.arguments);
    if (probe.arguments > 0 && (!arguments || arguments->size() < probe.arguments))
        return Error::failed(fmt::format("{}:{} of {} has arguments that cannot be read: {}",
                                         place.provider, place.name, path, place.arguments));
    for (std::size_t i = 0; i < probe.arguments; ++i) {
        const sys::UsdtArgument& from = (*arguments)[i];
        nc_gc_argument& to = site.arguments[site.count++];
        to.displacement = from.displacement;
        to.register_offset = from.register_offset;
        to.in_memory = from.in_memory;
        to.is_signed = from.is_signed;
        to.shift = static_cast<__u8>(64 - 8 * from.size);
    }
    return site;
}

std::string text_of(const char* bytes, std::size_t size) {
    return {bytes, strnlen(bytes, size)};
}

/// What runs now; those of the same files that come later are watched as well.
std::vector<usdt::ProbeFile> running_runtimes() {
    std::vector<usdt::ProbeFile> files;
    std::set<std::pair<std::uint64_t, std::uint64_t>> seen;
    for (const std::uint32_t pid : sys::all_processes())
        for (const sys::Mapping& mapping : sys::executable_mappings(pid)) {
            const std::string_view name =
                std::string_view(mapping.path).substr(mapping.path.rfind('/') + 1);
            if ((!name.starts_with("libjvm") && !name.starts_with("python") &&
                 !name.starts_with("libpython")) ||
                !seen.emplace(mapping.device, mapping.inode).second)
                continue;
            auto file = open_program_file(mapping);
            auto probes = file ? sys::list_usdt_probes(file->file.get())
                               : Result<std::vector<sys::UsdtProbe>>(file.error());
            if (probes)
                files.push_back({std::move(*file), std::move(*probes)});
        }
    return files;
}

} // namespace

std::optional<Collection> Collections::add(const nc_gc_record& record) {
    constexpr std::size_t most_open = 4096; // of threads whose end was lost
    const std::pair thread(record.owner.pid, record.tid);
    if (record.probe == NC_GC_POOL_BEGIN || record.probe == NC_GC_POOL_END) {
        if (open_.size() > most_open)
            open_.clear();
        Open& open = open_[thread];
        open.collector = text_of(record.collector, sizeof record.collector);
        const std::string name = text_of(record.pool, sizeof record.pool);
        auto pool = std::find_if(open.pools.begin(), open.pools.end(),
                                 [&](const Pool& one) { return one.name == name; });
        if (pool == open.pools.end())
            pool = open.pools.insert(pool, {name, record.used, record.used});
        (record.probe == NC_GC_POOL_BEGIN ? pool->before : pool->after) = record.used;
        return std::nullopt;
    }
    Collection collection;
    collection.time_ns = record.time_ns;
    collection.took_ns = record.took_ns;
    collection.cgroup_id = record.cgroup_id;
    collection.pid = record.owner.pid;
    collection.tid = record.tid;
    collection.comm = text_of(record.owner.comm, sizeof record.owner.comm);
    collection.java = record.probe == NC_GC_JAVA_END;
    if (collection.java) {
        collection.full = record.begun_with != 0;
        if (auto open = open_.extract(thread)) {
            collection.collector = std::move(open.mapped().collector);
            collection.pools = std::move(open.mapped().pools);
        }
    } else {
        collection.collector = fmt::format("generation {}", record.begun_with);
        collection.collected = record.ended_with;
    }
    return collection;
}

Result<std::vector<usdt::ProbeFile>> find_runtimes(const std::string& file, std::uint32_t pid) {
    std::vector<usdt::ProbeFile> files;
    if (file.empty() && pid == 0) {
        files = running_runtimes();
    } else {
        auto found = usdt::find_probe_files(file, pid);
        if (!found)
            return std::move(found).error().within(
                "no collections can be seen: node and other runtimes have no probes, nor has a "
                "Python or Java that was built without");
        files = std::move(*found);
    }
    std::erase_if(files, [](const usdt::ProbeFile& one) { return !collects(one); });
    if (files.empty())
        return Error::failed(
            file.empty() && pid == 0
                ? "no process runs a Java or Python that has probes of collections"
                : "there are probes, but none of collections (hotspot:gc__begin, python:gc__start)",
            "--file names a libjvm.so or python3 whose processes come later; node has none");
    return files;
}

Result<Instrument> watch_collections(const std::vector<usdt::ProbeFile>& files,
                                     const Selection& selection, std::uint32_t ring_bytes,
                                     std::function<void(const nc_gc_record&)> on_record) {
    bpf::capture_libbpf_messages();
    const auto skeleton = NETCTL_TRY(Skeleton::open());
    const bpf::Object object = skeleton.object();
    InstrumentPlan plan;
    plan.ring_bytes = ring_bytes;
    plan.probes = {"on_probe"};
    Instrument instrument = NETCTL_TRY(
        Instrument::start(object, selection, plan,
                          [on_record = std::move(on_record)](std::span<const std::byte> bytes) {
                              nc_gc_record record;
                              if (bytes.size() < sizeof record)
                                  return;
                              std::memcpy(&record, bytes.data(), sizeof record);
                              on_record(record);
                          }));
    const bpf::Program program = NETCTL_TRY(object.program("on_probe"));
    const bpf::RawMap sites = NETCTL_TRY(object.map("sites"));
    std::uint32_t number = 0;
    for (const usdt::ProbeFile& file : files)
        for (const sys::UsdtProbe& place : file.probes) {
            const Probe* probe = known(place);
            if (!probe)
                continue;
            if (number >= NC_GC_SITES)
                return Error::failed("there are too many runtimes to watch",
                                     "--pid or --file names one");
            NETCTL_TRY(usdt::check_site(file.file, place));
            const nc_gc_site site = NETCTL_TRY(site_of(*probe, place, file.file.path));
            NETCTL_TRY(sites.update(&number, &site));
            instrument.keep(NETCTL_TRY(bpf::attach_uprobe(program, file.file.file.get(),
                                                          place.offset, bpf::ProbeAt::entry, number,
                                                          selection.pid, place.semaphore)));
            ++number;
        }
    return instrument;
}

} // namespace netctl::trace::gc
