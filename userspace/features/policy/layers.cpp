// SPDX-License-Identifier: GPL-2.0-only
#include "features/policy/layers.hpp"

#include <array>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include "bpf/connect.hpp"
#include "features/policy/canary.hpp"
#include "features/policy/state.hpp"
#include "netctl/abi/classify.h"
#include "policy_canary.skel.h"
#include "policy_hooks.skel.h"

namespace netctl::policy {

namespace {

constexpr nc_policy_layer layer_of(std::size_t hook) {
    return hook < NC_HOOK_LSM_CONNECT ? NC_LAYER_CGROUP : NC_LAYER_LSM;
}

/// Maps that must be found from each program, used by its code or not.
constexpr std::array bound_maps{"root",   "segments", "texts", "counters", "stats",
                                "events", "limits",   "seen",  "cgroups"};

/// Outer maps of lib/sets.h.
constexpr std::array set_maps{"set_host4", "set_host6", "set_cidr4", "set_cidr6", "set_port"};

} // namespace

namespace {

using Canary = bpf::Skeleton<policy_canary>;

/// The layer's canary, loaded; it refuses `address`.
Result<Canary> load_canary(nc_policy_layer layer, std::uint32_t address) {
    Canary canary = NETCTL_TRY(Canary::open());
    const bpf::Object object = canary.object();
    const bool lsm = layer == NC_LAYER_LSM;
    NETCTL_TRY(object.set_constant("canary_address", {&address, 1}));
    NETCTL_TRY(object.set_autoload("canary_lsm", lsm));
    NETCTL_TRY(object.set_autoload("canary_cgroup", !lsm));
    auto loaded = object.load();
    if (!loaded) {
        Error error = Error::system(loaded.error().code, "the kernel refuses the program");
        error.kind = ErrorKind::unsupported;
        return error;
    }
    return canary;
}

} // namespace

Result<> load_layer(nc_policy_layer layer) {
    NETCTL_TRY(load_canary(layer, canary_address()));
    return {};
}

Result<> try_layer(nc_policy_layer layer, const std::string& directory) {
    const std::uint32_t address = canary_address();
    const Canary canary = NETCTL_TRY(load_canary(layer, address));
    const bpf::Object object = canary.object();
    const bool lsm = layer == NC_LAYER_LSM;
    int code = 0;
    if (lsm) {
        const bpf::Link link =
            NETCTL_TRY(bpf::attach_lsm(NETCTL_TRY(object.program("canary_lsm"))));
        code = NETCTL_TRY(connect_from_child(address, {}));
    } else {
        const TemporaryCgroup cgroup = NETCTL_TRY(TemporaryCgroup::below(directory));
        const Fd fd = NETCTL_TRY(sys::open_cgroup({cgroup.path(), {}, 0}));
        const bpf::Link link = NETCTL_TRY(bpf::attach_to_cgroup(
            fd.get(), NETCTL_TRY(object.program("canary_cgroup")), bpf::CgroupHook::connect4));
        code = NETCTL_TRY(connect_from_child(address, cgroup.path()));
    }
    if (code == EPERM)
        return {};
    return Error::unsupported(
        fmt::format("the program was attached, and a connection that it denies was not refused "
                    "({})",
                    code == 0 ? "it went on" : error_text(code)),
        lsm ? "'bpf' may be missing from the boot parameter lsm=" : "");
}

Result<Layers> choose_layers(LayerChoice choice, const sys::Cgroup& scope) {
    Layers layers;
    const auto add = [&](nc_policy_layer layer, bool must) -> Result<> {
        auto tried = try_layer(layer, scope.path);
        if (tried) {
            layers.mask |= 1U << layer;
            return {};
        }
        const std::string what =
            fmt::format("the {} layer cannot be had: {}", to_string(layer), tried.error().what);
        if (!must) {
            layers.notes.push_back(what);
            return {};
        }
        Error error = Error::unsupported(what, tried.error().hint);
        error.code = tried.error().code;
        if (error.hint.empty())
            error.hint = "--layer auto takes the layers that the kernel has";
        return error;
    };
    if (choice != LayerChoice::lsm)
        NETCTL_TRY(add(NC_LAYER_CGROUP, true));
    if (choice != LayerChoice::cgroup)
        NETCTL_TRY(add(NC_LAYER_LSM, choice != LayerChoice::automatic));
    if (choice == LayerChoice::automatic && !layers.notes.empty())
        layers.notes.back() += "; the cgroup layer works without it, see netctl-policy(8) for what "
                               "only the LSM layer sees";
    return layers;
}

Result<Programs> open_programs(std::uint32_t layers, bool probe) {
    auto skeleton = NETCTL_TRY(bpf::Skeleton<policy_hooks>::open());
    const bpf::Object object = skeleton.object();
    for (std::size_t hook = 0; hook < hook_names.size(); hook++)
        NETCTL_TRY(object.set_autoload(hook_names[hook], (layers & 1U << layer_of(hook)) != 0));
    NETCTL_TRY(object.set_autoload("probe", probe));
    NETCTL_TRY(object.set_autocreate("limit_src", false));
    NETCTL_TRY(object.set_max_entries("limits", NC_POLICY_MAX_RULES));
    // Those in force, and those to come.
    for (const char* name : set_maps)
        NETCTL_TRY(object.set_max_entries(name, 2 * NC_POLICY_SET_USES));
    return Programs{std::make_shared<bpf::Skeleton<policy_hooks>>(std::move(skeleton)), object};
}

Result<> attach_all(const bpf::Object& object, const sys::Cgroup& scope, std::uint32_t layers,
                    const bpf::PinDir& dir) {
    const Fd cgroup = NETCTL_TRY(sys::open_cgroup(scope));
    for (std::size_t hook = 0; hook < hook_names.size(); hook++) {
        if ((layers & 1U << layer_of(hook)) == 0)
            continue;
        const bpf::Program program = NETCTL_TRY(object.program(hook_names[hook]));
        for (const char* name : bound_maps)
            NETCTL_TRY(program.bind(NETCTL_TRY(object.map(name))));
        const bpf::Link link = layer_of(hook) == NC_LAYER_LSM
                                   ? NETCTL_TRY(bpf::attach_lsm(program))
                                   : NETCTL_TRY(bpf::attach_to_cgroup(
                                         cgroup.get(), program, static_cast<bpf::CgroupHook>(hook),
                                         bpf::CgroupPlace::first));
        NETCTL_TRY(dir.pin(hook_names[hook], link));
    }
    return {};
}

Result<> attach_anew(const sys::Cgroup& scope, const bpf::PinDir& dir, Transaction& transaction) {
    const Fd cgroup = NETCTL_TRY(sys::open_cgroup(scope));
    for (std::size_t hook = 0; hook < NC_HOOK_LSM_CONNECT; hook++) {
        const char* name = hook_names[hook];
        if (!NETCTL_TRY(dir.look_for(name)))
            continue;
        // The pin of the former link leads to the program, though the link is on nothing any more.
        const auto former = std::make_shared<bpf::Link>(NETCTL_TRY(dir.open_link(name)));
        const bpf::LinkInfo info = NETCTL_TRY(former->info());
        const bpf::Program program = NETCTL_TRY(bpf::Program::open_id(info.program_id));
        const bpf::Link link = NETCTL_TRY(bpf::attach_to_cgroup(
            cgroup.get(), program, static_cast<bpf::CgroupHook>(hook), bpf::CgroupPlace::first));
        transaction.or_else(dir.path_of(name),
                            [dir, name, former] { return dir.replace(name, *former); });
        NETCTL_TRY(dir.replace(name, link));
    }
    return {};
}

} // namespace netctl::policy
