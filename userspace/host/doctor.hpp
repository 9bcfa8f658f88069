// SPDX-License-Identifier: GPL-2.0-only
//
// What this kernel can do of what netctl's features ask, what to do about each lack, and who else holds the
// hooks of the interfaces.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bpf/tc.hpp"
#include "bpf/xdp.hpp"
#include "core/result.hpp"
#include "core/root_options.hpp"

namespace netctl::host {

enum class Answer : std::uint8_t {
    yes,
    no,
    unknown, ///< could not be tried, for lack of rights for example
};

/// How much a feature minds a lack.
enum class Need : std::uint8_t {
    required, ///< it does not work
    wanted,   ///< it does less, or is slower
};

/// One thing that the kernel or the host may lack.
struct Ability {
    std::string area; ///< the feature that asks for it, or `host`, which all stand on
    std::string name; ///< stable: the key for those who read JSON
    std::string what; ///< in words
    Need need{};
    bool in_use = false; ///< the feature is in use in this root
    Answer answer{};
    std::string detail; ///< why not; empty if there is nothing to say
    std::string remedy; ///< what to do, or what is lost; empty for yes
};

/// An interface of the current network namespace.
struct InterfaceHooks {
    std::string name, kind;
    std::optional<bpf::XdpFeatures> features; ///< nothing: the kernel does not tell
    bpf::XdpOccupant xdp;
    std::vector<bpf::TcxProgram> ingress, egress; ///< the tcx chains, in their order
};

struct Findings {
    std::string version;        ///< netctl's
    std::string kernel;         ///< release and machine, as uname tells them
    bool root_was_read = false; ///< else it is not known what is in use
    std::vector<Ability> abilities;
    std::vector<InterfaceHooks> interfaces;

    /// Whether what is in use has all that it requires: no comes before unknown.
    Answer healthy() const;
};

/// Tries everything out, which takes some seconds. Works without rights, too: what could not be tried is unknown.
/// Of the root, nothing is asked but which features have pins in it.
Findings examine(const RootOptions& root);

} // namespace netctl::host
