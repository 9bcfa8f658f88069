// SPDX-License-Identifier: GPL-2.0-only
//
// What must come of a packet by the reference parser and matcher, to compare a program's result with.
#pragma once

#include <string>

#include "classifier/packet.hpp"
#include "netctl/abi/packet.h"
#include "netctl/abi/rule.h"
#include "testing/prog_run.hpp"

namespace netctl::testing {

classifier::Parsed with_told(classifier::Parsed parsed, const nc_told& told);
nc_result expected_result(const ProgSetup& setup, const classifier::Parsed& parsed);
/// Fields of a packet that was not parsed are not specified.
bool same(const nc_result& kernel, const nc_result& reference);

std::string to_text(const nc_packet& p);
std::string to_text(const nc_result& r);
std::string to_text(const ProgSetup& setup);

} // namespace netctl::testing
