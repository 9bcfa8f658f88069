// SPDX-License-Identifier: GPL-2.0-only
//
// The linear engine: any rule set, at a cost that grows with it.
#pragma once

#include <span>

#include "classifier/engine.hpp"

namespace netctl::classifier {

/// `set_uses` are those of the rules, in the order of their bits.
Result<Compiled> compile_linear(std::span<const Rule> rules, std::span<const SetUse> set_uses);

} // namespace netctl::classifier
