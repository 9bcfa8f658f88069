// SPDX-License-Identifier: GPL-2.0-only
//
// Elements of a set as text, which lists of elements are read from.
#pragma once

#include <string>
#include <vector>

#include "datapath/set_text.hpp"

namespace netctl::host {

/// One a line, as `netctl set list` shows them.
std::vector<std::string> element_lines(const std::vector<datapath::ListedElement>& elements);

} // namespace netctl::host
