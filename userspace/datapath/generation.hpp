// SPDX-License-Identifier: GPL-2.0-only
//
// One generation of a point: a program loaded with the tables of one list of rules. A commit loads
// the next generation aside, and puts it into the link with one update (invariant I2).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "bpf/object.hpp"
#include "classifier/engine.hpp"
#include "core/rule.hpp"
#include "datapath/point.hpp"
#include "datapath/root.hpp"
#include "datapath/sets.hpp"

namespace netctl::datapath {

/// Gives the number by which the program knows a redirect target, or an error that says why this
/// device cannot be one. Asked once for each device.
using ResolveDevice = std::function<Result<std::uint32_t>(const std::string& device)>;

struct GenerationRequest {
    std::string program;                 ///< its name in the object
    Hook hook = Hook::xdp;               ///< tc has maps of its own
    PointState* state = nullptr;         ///< slots of new rules are filled in
    const LivePoint* previous = nullptr; ///< whose counters, limits and log go on; null: first
    ResolveDevice resolve_device;
    bool simulate = false; ///< for BPF_PROG_TEST_RUN: own counters, nothing shared but sets
};

struct Generation {
    bpf::Program program;
    std::string engine;             ///< form of the classifier
    std::size_t rules_apart = 0;    ///< as in classifier::Compiled
    std::string reason;             ///< for these, or for the linear form
    std::size_t memory = 0;         ///< bytes of its tables
    std::vector<std::string> notes; ///< devices that are gone
};

/// Loads `object`, opened and otherwise untouched, with the rules and settings of the request.
/// Nothing is attached or pinned: an error leaves all as it was.
Result<Generation> load_generation(const bpf::Object& object, const Root& root,
                                   const GenerationRequest& request);

/// Makes the pins beside the link lead to this program's maps.
Result<> publish_pins(const bpf::PinDir& dir, const bpf::Program& program);
/// Removes them; the pin of the link or program stays.
Result<> remove_pins(const bpf::PinDir& dir);

// ---- what other forms of a generation are made of as well ----

/// Gives each rule without a counter slot one that neither the present nor the last list uses: what
/// is in force must not count into a slot that is being zeroed.
void assign_slots(std::vector<InstalledRule>& rules, const std::vector<InstalledRule>* previous);

struct CounterKind {
    const char* chunk; ///< template of a chunk (bpf/maps/standalone.bpf.c)
    std::size_t size;  ///< bytes of one CPU's counter
};
/// Makes the counters that the rules' slots need, and zeroes those of rules that are new.
Result<> prepare_counters(const bpf::RawMap& counters, const std::vector<InstalledRule>& rules,
                          const std::vector<InstalledRule>* previous, const CounterKind& kind);

/// Opens the set that rules ask about; fails if it holds something else than the field.
Result<Set> open_used_set(const Root& root, const classifier::SetUse& use);
using FindMap = std::function<Result<bpf::RawMap>(const std::string& name)>;
/// Puts the maps of a set into the outer maps of lib/sets.h.
Result<> place_set(const FindMap& find, const Set& set, std::uint32_t index);

/// Drops the state of limits and rates whose rules are gone. After the program that used them is
/// replaced.
Result<> forget_limits(const bpf::Program& program, const PointState& state, Hook hook);

} // namespace netctl::datapath
