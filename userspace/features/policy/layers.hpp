// SPDX-License-Identifier: GPL-2.0-only
//
// The two layers: which of them the kernel has, and their programs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bpf/object.hpp"
#include "bpf/pin_dir.hpp"
#include "core/transaction.hpp"
#include "features/policy/controller.hpp"
#include "sys/cgroup.hpp"

namespace netctl::policy {

/// Whether the kernel takes the layer's programs. Nothing is attached and no connection made, so no policy that is in
/// force judges or counts anything, as it would for try_layer().
Result<> load_layer(nc_policy_layer layer);

struct Layers {
    std::uint32_t mask = 0;
    std::vector<std::string> notes;
};

Result<Layers> choose_layers(LayerChoice choice, const sys::Cgroup& scope);

/// The programs' object, and what it is a view of.
struct Programs {
    std::shared_ptr<void> owner;
    bpf::Object object;
};

/// Opens the programs, and prepares the object for the hooks of these layers (1 << enum
/// nc_policy_layer), or for `probe`. They are not loaded yet.
Result<Programs> open_programs(std::uint32_t layers, bool probe);

/// Attaches loaded programs and pins their links.
Result<> attach_all(const bpf::Object& object, const sys::Cgroup& scope, std::uint32_t layers,
                    const bpf::PinDir& dir);

/// Puts the programs of the pinned links of the cgroup layer on `scope`, since the cgroup that they were on
/// is gone; the pins are replaced. Unless the transaction is committed they are the former ones again, and the
/// new cgroup has no hook.
Result<> attach_anew(const sys::Cgroup& scope, const bpf::PinDir& dir, Transaction& transaction);

} // namespace netctl::policy
