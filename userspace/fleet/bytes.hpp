// SPDX-License-Identifier: GPL-2.0-only
//
// Hashes, base64 and compression of what a fleet passes around.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "core/result.hpp"

namespace netctl::fleet {

/// SHA-256, 32 bytes.
std::string sha256(std::string_view bytes);
/// The same in 64 lower-case hexadecimal digits.
std::string sha256_text(std::string_view bytes);
/// Whether it is such a text.
bool is_sha256_text(std::string_view text);

std::string base64(std::string_view bytes);
/// Nothing if it is no base64 with its padding.
std::optional<std::string> from_base64(std::string_view text);

Result<std::string> compress(std::string_view bytes);
/// What `stored` holds, as it is or as zstd's: exactly `size` bytes, and no more of it is unpacked. Errors: it is
/// no zstd, or holds another number of bytes.
Result<std::string> unpack(std::string stored, std::size_t size);

} // namespace netctl::fleet
