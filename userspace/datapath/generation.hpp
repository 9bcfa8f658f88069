// SPDX-License-Identifier: GPL-2.0-only
//
// One generation of a point: a program loaded with the tables of one list of rules. A commit loads
// the next generation aside, and puts it into the link with one update (invariant I2).
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "bpf/object.hpp"
#include "classifier/engine.hpp"
#include "core/rule.hpp"
#include "datapath/point.hpp"
#include "datapath/root.hpp"
#include "datapath/rule_action.hpp"
#include "datapath/set_uses.hpp"

namespace netctl::datapath {

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

/// Gives a program that classifies (lib/classify.h, lib/sets.h) its tables and constants. Before loading.
Result<> set_classifier(const bpf::Object& object, const classifier::Compiled& compiled,
                        const OpenedSets& sets);

/// Loads `object`, opened and otherwise untouched, with the rules and settings of the request.
/// Nothing is attached or pinned: an error leaves all as it was.
Result<Generation> load_generation(const bpf::Object& object, const Root& root,
                                   const GenerationRequest& request);

/// Makes the pins beside the link lead to this program's maps.
Result<> publish_pins(const bpf::PinDir& dir, const bpf::Program& program);
/// Removes them; the pin of the link or program stays.
Result<> remove_pins(const bpf::PinDir& dir);

} // namespace netctl::datapath
