// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/profile/places.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <fcntl.h>
#include <fstream>
#include <string_view>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "features/trace/demangle.hpp"
#include "sys/clock.hpp"

namespace netctl::trace::profile {

namespace {

/// Sources of what is in no file: these, and one for each process that compiles.
constexpr std::size_t the_kernel = 0;
constexpr std::size_t nowhere = 1;
constexpr std::size_t kernels_page = 2;
constexpr std::size_t first_free = 3;

/// Each keeps a descriptor open until its map is read.
constexpr std::size_t most_compilers = 256;

/// So many processes at a time; of those that come again the mappings are read again.
constexpr std::size_t most_processes = 4096;

/// Whether it is a file that may have symbols, and no memory that has a name only.
bool is_file(const sys::Mapping& mapping) {
    const std::string_view path = mapping.path;
    return mapping.inode != 0 && path.starts_with('/') && !path.starts_with("/memfd:") &&
           !path.starts_with("/dev/") && !path.starts_with("/SYSV") && !path.starts_with("//anon");
}

/// Its number in the innermost of its namespaces, which is how it calls itself.
std::uint32_t own_number(std::uint32_t pid) {
    std::ifstream status(fmt::format("/proc/{}/status", pid));
    for (std::string line; std::getline(status, line);) {
        if (!line.starts_with("NSpid:"))
            continue;
        const std::string_view last = std::string_view(line).substr(line.find_last_of("\t ") + 1);
        std::uint32_t number = 0;
        if (std::from_chars(last.begin(), last.end(), number).ec == std::errc{})
            return number;
    }
    return pid;
}

/// The map that the process, or root for it, has written; of others' it is not known whether they lie.
PerfMap read_map(int directory, std::uint32_t pid, std::uint32_t uid) {
    const Fd file(openat(directory, fmt::format("perf-{}.map", pid).c_str(),
                         O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    struct stat about {};
    if (!file || fstat(file.get(), &about) != 0 || !S_ISREG(about.st_mode) ||
        (about.st_uid != 0 && about.st_uid != uid))
        return {};
    constexpr std::size_t most = std::size_t{256} << 20;
    std::string text;
    std::array<char, 64 * 1024> buffer{};
    for (ssize_t size = 0;
         text.size() < most && (size = read(file.get(), buffer.data(), buffer.size())) > 0;)
        text.append(buffer.data(), static_cast<std::size_t>(size));
    return PerfMap(text);
}

} // namespace

Places::Places() : sources_(first_free) {}

Places::Id Places::id_of(std::size_t source, std::uint64_t offset) {
    const auto [known, first] = ids_.try_emplace({source, offset}, static_cast<Id>(places_.size()));
    if (first)
        places_.emplace_back(source, offset);
    return known->second;
}

void Places::add_kernel(std::span<const std::uint64_t> addresses, std::vector<Id>& ids) {
    for (std::size_t i = 0; i < addresses.size(); ++i)
        ids.push_back(id_of(the_kernel, addresses[i] - (i > 0 ? 1 : 0)));
}

bool Places::add_user(const ProgramRun& run, std::span<const std::uint64_t> addresses,
                      std::vector<Id>& ids) {
    if (addresses.empty())
        return true;
    Process& process = process_of(run);
    const std::size_t before = ids.size();
    for (std::size_t i = 0; i < addresses.size(); ++i) {
        // A call may be the last instruction of its function.
        const auto [source, offset] = place_of(process, run.pid, addresses[i] - (i > 0 ? 1 : 0));
        ids.push_back(id_of(source, offset));
    }
    // Nothing returns to where no code is.
    while (ids.size() > before + 1 && places_[ids.back()].first == nowhere)
        ids.pop_back();
    return !process.mappings.empty();
}

Places::Process& Places::process_of(const ProgramRun& run) {
    if (const auto known = processes_.find(run); known != processes_.end())
        return known->second;
    if (processes_.size() >= most_processes)
        processes_.clear();
    Process& process = processes_[run];
    process.mappings = sys::code_mappings(run.pid);
    process.read_ns = sys::monotonic_now();
    return process;
}

std::pair<std::size_t, std::uint64_t> Places::place_of(Process& process, std::uint32_t pid,
                                                       std::uint64_t address) {
    const auto find = [&]() -> const sys::Mapping* {
        const auto behind = std::upper_bound(
            process.mappings.begin(), process.mappings.end(), address,
            [](std::uint64_t wanted, const sys::Mapping& one) { return wanted < one.begin; });
        if (behind == process.mappings.begin() || address >= std::prev(behind)->end)
            return nullptr;
        return &*std::prev(behind);
    };
    const sys::Mapping* mapping = find();
    // It may have mapped more since; or it is no address, as stacks without frame pointers end with.
    const std::int64_t now = sys::monotonic_now();
    if (!mapping && now - process.read_ns > 250'000'000) {
        process.read_ns = now;
        if (auto mappings = sys::code_mappings(pid); !mappings.empty())
            process.mappings = std::move(mappings);
        mapping = find();
    }
    if (!mapping)
        return {nowhere, 0};
    if (is_file(*mapping))
        return {file_source(*mapping), address - mapping->begin + mapping->offset};
    // Of the kernel's own code in processes, that it is that is all that is told.
    if (mapping->path == "[vdso]" || mapping->path == "[vsyscall]")
        return {kernels_page, 0};
    if (!process.compiled)
        process.compiled = compiled_source(pid);
    return {*process.compiled, address};
}

std::size_t Places::file_source(const sys::Mapping& mapping) {
    const auto [known, first] =
        files_.try_emplace({mapping.device, mapping.inode}, sources_.size());
    if (first) {
        Source& source = sources_.emplace_back();
        source.path = mapping.path;
        source.file = sys::open_mapped(mapping);
    }
    return known->second;
}

std::size_t Places::compiled_source(std::uint32_t pid) {
    Source& source = sources_.emplace_back();
    source.kind = Frame::Kind::compiled;
    source.pid = own_number(pid);
    if (compilers_++ < most_compilers)
        source.directory = Fd(open(fmt::format("/proc/{}/root/{}", pid, "tmp").c_str(),
                                   O_PATH | O_DIRECTORY | O_CLOEXEC));
    struct stat about {};
    if (stat(fmt::format("/proc/{}", pid).c_str(), &about) == 0)
        source.uid = about.st_uid;
    return sources_.size() - 1;
}

Frame Places::name(Id id) {
    const auto [index, offset] = places_[id];
    if (index == the_kernel) {
        std::string name = kernel_.at(offset);
        name.resize(std::min(name.size(), name.rfind('+')));
        const bool named = !name.empty();
        return {Frame::Kind::kernel, named ? std::move(name) : "[kernel]", {}, named};
    }
    if (index == nowhere || index == kernels_page)
        return {Frame::Kind::user, index == nowhere ? "[unknown]" : "[vdso]", {}, false};
    Source& source = sources_[index];
    if (source.kind == Frame::Kind::compiled) {
        if (!source.map)
            source.map = source.directory ? read_map(source.directory.get(), source.pid, source.uid)
                                          : PerfMap();
        std::string name = source.map->at(offset);
        const bool named = !name.empty();
        return {Frame::Kind::compiled, named ? std::move(name) : "[unknown]", {}, named};
    }
    if (!source.symbols)
        source.symbols.emplace(std::move(source.file), source.path);
    std::string name = demangled(source.symbols->at(offset));
    if (!name.empty())
        return {Frame::Kind::user, std::move(name), source.path, true};
    return {Frame::Kind::user, fmt::format("[{}]", source.path.substr(source.path.rfind('/') + 1)),
            source.path, false};
}

} // namespace netctl::trace::profile
