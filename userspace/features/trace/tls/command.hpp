// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include "core/command.hpp"

namespace netctl::trace::tls {

/// `tls`: handshakes.
Command tls_command();

} // namespace netctl::trace::tls
