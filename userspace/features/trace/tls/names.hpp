// SPDX-License-Identifier: GPL-2.0-only
//
// Names of TLS's numbers, as IANA's registries have them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace netctl::trace::tls {

/// `TLS 1.3`; `0x7f1c` of what has no name.
std::string version_name(std::uint16_t version);
/// `TLS_AES_128_GCM_SHA256`; `0xc0ff` of what is not in the table.
std::string cipher_name(std::uint16_t cipher);
/// `handshake_failure`, RFC 8446 6 and older; `123` of what has no name.
std::string alert_name(std::uint8_t description);

} // namespace netctl::trace::tls
