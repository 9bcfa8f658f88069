// SPDX-License-Identifier: GPL-2.0-only
#include "bpf/probe.hpp"

#include <cerrno>
#include <cstdint>
#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bpf/btf.h>
#include <bpf/libbpf.h>

namespace netctl::bpf {

Result<> check_capabilities() {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2]{};
    // Through the system call: libcap would be one more dependency for this one question.
    if (syscall(SYS_capget, &header, data) != 0)
        return Error::system(errno, "cannot read this process's capabilities");
    const std::uint64_t effective =
        static_cast<std::uint64_t>(data[1].effective) << 32 | data[0].effective;
    const auto has = [&](int capability) { return (effective >> capability & 1) != 0; };

    std::string missing;
    if (!has(CAP_BPF) && !has(CAP_SYS_ADMIN))
        missing = "CAP_BPF";
    if (!has(CAP_NET_ADMIN))
        missing += missing.empty() ? "CAP_NET_ADMIN" : " and CAP_NET_ADMIN";
    if (missing.empty())
        return {};
    return Error::failed("this process has no " + missing, "run as root");
}

bool kernel_has_function(const std::string& name) {
    return libbpf_find_vmlinux_btf_id(name.c_str(), BPF_TRACE_FEXIT) > 0;
}

void KernelTypes::Free::operator()(btf* types) const {
    btf__free(types);
}

Result<KernelTypes> KernelTypes::load() {
    btf* types = btf__load_vmlinux_btf();
    if (!types)
        return Error::system(errno, "cannot read the kernel's types (BTF)",
                             "a kernel with CONFIG_DEBUG_INFO_BTF has them");
    return KernelTypes(types);
}

std::optional<unsigned> KernelTypes::tracepoint_arguments(const std::string& name) const {
    // typedef void (*btf_trace_NAME)(void *, ARGUMENTS): the first is the kernel's own.
    const __s32 id =
        btf__find_by_name_kind(types_.get(), ("btf_trace_" + name).c_str(), BTF_KIND_TYPEDEF);
    if (id < 0)
        return std::nullopt;
    const btf_type* pointer =
        btf__type_by_id(types_.get(), btf__type_by_id(types_.get(), static_cast<__u32>(id))->type);
    if (!pointer || !btf_is_ptr(pointer))
        return std::nullopt;
    const btf_type* function = btf__type_by_id(types_.get(), pointer->type);
    if (!function || !btf_is_func_proto(function) || btf_vlen(function) == 0)
        return std::nullopt;
    return btf_vlen(function) - 1u;
}

std::map<std::uint32_t, std::string> KernelTypes::enum_names(const std::string& name) const {
    std::map<std::uint32_t, std::string> names;
    const __s32 id = btf__find_by_name_kind(types_.get(), name.c_str(), BTF_KIND_ENUM);
    if (id < 0)
        return names;
    const btf_type* type = btf__type_by_id(types_.get(), static_cast<__u32>(id));
    const struct btf_enum* values = btf_enum(type);
    for (unsigned i = 0; i < btf_vlen(type); ++i)
        names.emplace(static_cast<std::uint32_t>(values[i].val),
                      btf__name_by_offset(types_.get(), values[i].name_off));
    return names;
}

} // namespace netctl::bpf
