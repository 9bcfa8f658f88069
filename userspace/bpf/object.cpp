// SPDX-License-Identifier: GPL-2.0-only
#include "bpf/object.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdarg>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <fcntl.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>

#include "bpf/uapi.hpp"
#include "core/log.hpp"

namespace netctl::bpf {

namespace {

std::string complaint;

int on_message(libbpf_print_level level, const char* format, va_list arguments) {
    if (level == LIBBPF_DEBUG && verbosity() != Verbosity::libraries)
        return 0;
    va_list copy;
    va_copy(copy, arguments);
    const int size = std::vsnprintf(nullptr, 0, format, copy);
    va_end(copy);
    if (size <= 0)
        return 0;
    std::string text(static_cast<std::size_t>(size) + 1, '\0');
    std::vsnprintf(text.data(), text.size(), format, arguments);
    text.resize(static_cast<std::size_t>(size));
    while (!text.empty() && text.back() == '\n')
        text.pop_back();
    for (std::size_t begin = 0; begin <= text.size();) {
        const std::size_t end = std::min(text.find('\n', begin), text.size());
        debug(std::string_view(text).substr(begin, end - begin));
        begin = end + 1;
    }
    if (level == LIBBPF_WARN)
        complaint += (complaint.empty() ? "" : "\n") + text;
    return 0;
}

Result<Fd> duplicate(int fd, const std::string& what) {
    Fd copy(fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (!copy)
        return Error::system(errno, fmt::format("cannot duplicate the handle of {}", what));
    return copy;
}

/// The verifier prints thousands of lines; the reason stands at the end.
Text last_lines(std::string_view text, std::size_t count) {
    Text lines;
    while (count-- > 0 && !text.empty()) {
        const std::size_t end = text.rfind('\n');
        const Text line = text.substr(end == text.npos ? 0 : end + 1);
        lines = lines.empty() ? line : Text::format("{}\n{}", line, lines);
        text = text.substr(0, end == text.npos ? 0 : end);
    }
    return lines;
}

} // namespace

void capture_libbpf_messages() {
    libbpf_set_print(on_message);
}

std::string libbpf_complaint() {
    return std::exchange(complaint, {});
}

Result<Program> Program::open_id(std::uint32_t id) {
    Fd fd(bpf_prog_get_fd_by_id(id));
    if (!fd)
        return Error::system(errno, fmt::format("cannot open the program with id {}", id));
    return Program(std::move(fd));
}

Result<ProgramInfo> Program::info() const {
    bpf_prog_info info{};
    __u32 size = sizeof info;
    if (bpf_prog_get_info_by_fd(fd_.get(), &info, &size) != 0)
        return Error::system(errno, "cannot read a program's information");
    ProgramInfo result{info.id, info.type, info.name, std::vector<std::uint32_t>(info.nr_map_ids),
                       info.recursion_misses};
    if (result.map_ids.empty())
        return result;
    bpf_prog_info again{};
    again.nr_map_ids = static_cast<__u32>(result.map_ids.size());
    again.map_ids = reinterpret_cast<__u64>(result.map_ids.data());
    size = sizeof again;
    if (bpf_prog_get_info_by_fd(fd_.get(), &again, &size) != 0)
        return Error::system(errno, "cannot read a program's maps");
    result.map_ids.resize(std::min<std::size_t>(again.nr_map_ids, result.map_ids.size()));
    return result;
}

Result<RawMap> Program::map(const std::string& name) const {
    const ProgramInfo program = NETCTL_TRY(info());
    for (const std::uint32_t id : program.map_ids) {
        RawMap map = NETCTL_TRY(RawMap::open_id(id));
        if (NETCTL_TRY(map_info(map.fd())).name == name)
            return map;
    }
    return Error::failed(
        fmt::format("program {} (id {}) has no map '{}'", program.name, program.id, name),
        "it was made by another version of netctl");
}

Result<> Program::bind(const RawMap& map) const {
    if (bpf_prog_bind_map(fd_.get(), map.fd(), nullptr) != 0)
        return Error::system(errno, fmt::format("cannot bind map {} to a program", map.name()));
    return {};
}

Result<Link> find_link_with(const RawMap& map) {
    const std::uint32_t wanted = NETCTL_TRY(map_info(map.fd())).id;
    for (__u32 id = 0; bpf_link_get_next_id(id, &id) == 0;) {
        Link link(Fd(bpf_link_get_fd_by_id(id)));
        if (!link)
            continue; // gone by now
        const auto info = link.info();
        const auto program =
            info ? Program::open_id(info->program_id) : Result<Program>(Error(info.error()));
        const auto about = program ? program->info() : Result<ProgramInfo>(Error(program.error()));
        if (about &&
            std::find(about->map_ids.begin(), about->map_ids.end(), wanted) != about->map_ids.end())
            return link;
    }
    return Error::failed(fmt::format("no link's program uses the map {}", map.name()));
}

Result<LinkInfo> Link::info() const {
    bpf_link_info info{};
    __u32 size = sizeof info;
    if (bpf_link_get_info_by_fd(fd_.get(), &info, &size) != 0)
        return Error::system(errno, "cannot read a link's information");
    LinkInfo result{info.id, info.prog_id, 0, 0};
    // Both kinds begin with the interface; headers of 6.1 have no name for the one of tcx.
    static_assert(offsetof(bpf_link_info, xdp.ifindex) == 16);
    if (info.type == BPF_LINK_TYPE_XDP || info.type == uapi::link_type_tcx)
        result.ifindex = info.xdp.ifindex;
    if (info.type == BPF_LINK_TYPE_CGROUP)
        result.cgroup = info.cgroup.cgroup_id;
    return result;
}

Result<> Link::update(const Program& program) const {
    if (bpf_link_update(fd_.get(), program.fd(), nullptr) != 0)
        return Error::system(errno, "cannot put the new program into the link");
    return {};
}

namespace {

/// Size of one element of the array that fills the data section behind `map`.
Result<std::size_t> element_size(const bpf_object* object, const bpf_map* map,
                                 const std::string& name) {
    const btf* types = bpf_object__btf(object);
    const btf_type* section = btf__type_by_id(types, bpf_map__btf_value_type_id(map));
    if (section && btf_is_datasec(section) && btf_vlen(section) > 0) {
        const __u32 last = btf_var_secinfos(section)[btf_vlen(section) - 1].type;
        const btf_type* variable = btf__type_by_id(types, last);
        const btf_type* array = btf__type_by_id(types, variable->type);
        if (btf_is_array(array)) {
            const __s64 size = btf__resolve_size(types, btf_array(array)->type);
            if (size > 0)
                return static_cast<std::size_t>(size);
        }
    }
    return Error::failed(fmt::format("table '{}' is no array", name));
}

} // namespace

Result<bpf_map*> Object::find(const std::string& name) const {
    bpf_map* map = bpf_object__find_map_by_name(object_, name.c_str());
    if (!map)
        return Error::failed(fmt::format("the BPF object has no map '{}'", name));
    return map;
}

Result<bpf_program*> Object::find_program(const std::string& name) const {
    bpf_program* program = bpf_object__find_program_by_name(object_, name.c_str());
    if (!program)
        return Error::failed(fmt::format("the BPF object has no program '{}'", name));
    return program;
}

Result<> Object::set_table(const std::string& name, std::span<const std::byte> bytes) const {
    bpf_map* map = nullptr;
    // libbpf puts the start of the object's name in front of a data section's.
    const std::string suffix = ".bss." + name;
    bpf_map* candidate = nullptr;
    bpf_object__for_each_map(candidate, object_) {
        const std::string candidate_name = bpf_map__name(candidate);
        if (candidate_name == suffix || candidate_name.ends_with(suffix))
            map = candidate;
    }
    if (!map)
        return Error::failed(fmt::format("the BPF object has no table '{}'", name));
    // An empty table keeps one element: there are no maps without a value.
    const std::size_t size =
        bytes.empty() ? NETCTL_TRY(element_size(object_, map, name)) : bytes.size();
    const int status = bpf_map__set_value_size(map, static_cast<__u32>(size));
    if (status != 0)
        return Error::system(-status, fmt::format("cannot size table '{}'", name));
    std::size_t available = 0;
    void* memory = bpf_map__initial_value(map, &available);
    if (!memory || available < bytes.size())
        return Error::failed(
            fmt::format("table '{}' has no memory for {} bytes", name, bytes.size()));
    std::memcpy(memory, bytes.data(), bytes.size());
    return {};
}

Result<> Object::set_constant(const std::string& name,
                              std::span<const std::uint32_t> values) const {
    return set_rodata(name, std::as_bytes(values));
}

Result<> Object::set_rodata(const std::string& name, std::span<const std::byte> bytes) const {
    const btf* types = bpf_object__btf(object_);
    bpf_map* map = nullptr;
    bpf_object__for_each_map(map, object_) {
        if (!std::string(bpf_map__name(map)).ends_with(".rodata"))
            continue;
        std::size_t available = 0;
        auto* memory = static_cast<std::byte*>(bpf_map__initial_value(map, &available));
        const btf_type* section = btf__type_by_id(types, bpf_map__btf_value_type_id(map));
        if (!memory || !section)
            continue;
        const btf_var_secinfo* variables = btf_var_secinfos(section);
        for (unsigned i = 0; i < btf_vlen(section); i++) {
            const btf_type* variable = btf__type_by_id(types, variables[i].type);
            if (name != btf__name_by_offset(types, variable->name_off))
                continue;
            if (bytes.size() > variables[i].size || variables[i].offset + bytes.size() > available)
                return Error::failed(fmt::format("constant '{}' takes {} bytes, not {}", name,
                                                 variables[i].size, bytes.size()));
            std::memcpy(memory + variables[i].offset, bytes.data(), bytes.size());
            return {};
        }
    }
    return Error::failed(fmt::format("the BPF object has no constant '{}'", name));
}

Result<> Object::set_max_entries(const std::string& map, std::uint32_t entries) const {
    const int status = bpf_map__set_max_entries(NETCTL_TRY(find(map)), entries);
    if (status != 0)
        return Error::system(-status, fmt::format("cannot size map '{}'", map));
    return {};
}

Result<> Object::reuse(const std::string& map, const RawMap& existing) const {
    const int status = bpf_map__reuse_fd(NETCTL_TRY(find(map)), existing.fd());
    if (status != 0)
        return Error::system(-status, fmt::format("cannot reuse map '{}'", map));
    return {};
}

Result<> Object::set_autocreate(const std::string& map, bool create) const {
    const int status = bpf_map__set_autocreate(NETCTL_TRY(find(map)), create);
    if (status != 0)
        return Error::system(-status, fmt::format("cannot choose whether to make map '{}'", map));
    return {};
}

Result<> Object::set_autoload(const std::string& name, bool load) const {
    const int status = bpf_program__set_autoload(NETCTL_TRY(find_program(name)), load);
    if (status != 0)
        return Error::system(-status, fmt::format("cannot choose whether to load '{}'", name));
    return {};
}

Result<> Object::load_only(std::span<const std::string> programs) const {
    bpf_program* program = nullptr;
    bpf_object__for_each_program(program, object_) bpf_program__set_autoload(program, false);
    for (const std::string& name : programs)
        NETCTL_TRY(set_autoload(name, true));
    return {};
}

Result<> Object::set_target(const std::string& name, const std::string& function) const {
    const int status =
        bpf_program__set_attach_target(NETCTL_TRY(find_program(name)), 0, function.c_str());
    if (status != 0)
        return Error::system(-status, fmt::format("cannot aim {} at {}", name, function),
                             libbpf_complaint());
    return {};
}

namespace {

/// What the contents of the maps take that loading will make, about.
std::size_t bytes_of_maps(bpf_object* object) {
    std::size_t bytes = 0;
    bpf_map* map = nullptr;
    bpf_object__for_each_map(map, object) if (bpf_map__autocreate(map) && bpf_map__fd(map) < 0)
        bytes += std::size_t{bpf_map__max_entries(map)} *
                 (bpf_map__key_size(map) + bpf_map__value_size(map));
    return bytes;
}

} // namespace

Result<> Object::load() const {
    libbpf_complaint();
    const std::size_t bytes = bytes_of_maps(object_);
    const auto start = std::chrono::steady_clock::now();
    const int status = bpf_object__load(object_);
    const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(
        std::chrono::steady_clock::now() - start);
    debug(Text::format("{} {}, maps of {} KiB, in {} ms", bpf_object__name(object_),
                       status == 0 ? "loaded" : "refused", bytes / 1024, took.count()));
    if (status == 0)
        return {};
    const std::string words = libbpf_complaint();
    if (-status == EPERM || -status == EACCES)
        return Error::system(
            -status, Text::format("the kernel refused the program: {}", last_lines(words, 3)),
            "loading BPF programs takes root, or CAP_BPF and CAP_NET_ADMIN");
    if (-status == ENOMEM)
        return Error::system(
            -status, fmt::format("the kernel has no memory for maps of about {} KiB", bytes / 1024),
            "nothing was changed; a memory limit of one's control group counts BPF maps, too");
    return Error::system(-status,
                         Text::format("the kernel refused the program: {}", last_lines(words, 6)));
}

Result<RawMap> Object::map(const std::string& name) const {
    bpf_map* map = NETCTL_TRY(find(name));
    return RawMap(NETCTL_TRY(duplicate(bpf_map__fd(map), name)), name);
}

Result<Program> Object::program(const std::string& name) const {
    const bpf_program* program = NETCTL_TRY(find_program(name));
    return Program(NETCTL_TRY(duplicate(bpf_program__fd(program), name)));
}

namespace {

/// Of libbpf's link a handle of our own; the kernel's link lives on with it.
Result<Link> keep_link(bpf_link* link, const std::string& program) {
    if (!link)
        return Error::system(errno, fmt::format("cannot attach {}", program), libbpf_complaint());
    auto copy = duplicate(bpf_link__fd(link), program);
    bpf_link__destroy(link);
    return Link(NETCTL_TRY(std::move(copy)));
}

} // namespace

Result<Link> Object::attach(const std::string& program) const {
    const bpf_program* found = NETCTL_TRY(find_program(program));
    libbpf_complaint();
    return keep_link(bpf_program__attach(found), program);
}

Result<Link> Object::attach_to_target(const std::string& program, std::uint64_t cookie) const {
    const bpf_program* found = NETCTL_TRY(find_program(program));
    libbpf_complaint();
    LIBBPF_OPTS(bpf_trace_opts, options, .cookie = cookie);
    return keep_link(bpf_program__attach_trace_opts(found, &options), program);
}

} // namespace netctl::bpf
