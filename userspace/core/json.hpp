// SPDX-License-Identifier: GPL-2.0-only
//
// For those that build or read JSON. Others name the type only, and need not wait for the library's
// header to be compiled: core/output.hpp is enough for them.
#pragma once

#include <nlohmann/json.hpp>

#include "core/output.hpp"
