// SPDX-License-Identifier: GPL-2.0-only
//
// What Content-Encoding says was done to a body, undone.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "core/result.hpp"
#include "features/trace/http/http_connection.hpp"

namespace netctl::trace {

struct Decoded {
    std::string bytes;
    bool whole = false; ///< to the end of what was encoded; else its beginning
};

/// Of a body of any size as much is decoded: a few bytes may stand for gigabytes.
constexpr std::size_t decoded_limit = 8 * 1024 * 1024;

/// Undoes `codings`, a list as in the field, from its end: gzip, deflate (with zlib's header or, as some
/// send it, without), br and zstd, in any case. Of a body that is cut, what there is of it. An error that
/// names the coding if it is another, or if these bytes are not of it.
Result<Decoded> decode_content(std::string_view codings, std::string_view body,
                               std::size_t limit = decoded_limit);

/// Decodes the bodies that there are of a transaction, as far as their codings are known. What is not what it
/// says stays as it is.
void decode_bodies(Transaction& transaction);

} // namespace netctl::trace
