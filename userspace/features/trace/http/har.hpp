// SPDX-License-Identifier: GPL-2.0-only
//
// HTTP archives: HAR 1.2, as J. Odvarko specified it and browsers' developer tools open it.
#pragma once

#include <cstdint>
#include <string>

#include <sys/types.h>

#include "core/fd.hpp"
#include "core/result.hpp"
#include "features/trace/http/http_connection.hpp"

namespace netctl::trace {

/// Appends an entry. Bodies that are no text are in base64: content.encoding says so, and for requests, for which
/// HAR 1.2 has no such field, postData._encoding. What is missing of a body stands in its comment.
void append_har_entry(std::string& out, const Transaction& transaction);
/// What stands before the first and after the last entry. All are of one page, as some readers want one; it
/// began at `start`.
std::string har_begin(const std::string& version, Time start);
std::string har_end();

/// An archive that is complete after each flush, also one that failed: the end is written each time,
/// and overwritten by the next entries.
class HarFile {
  public:
    /// An archive without entries; an error if the file cannot be written.
    static Result<HarFile> create(const std::string& path);
    void add(const Transaction& transaction);
    /// Bytes that wait for a flush.
    std::size_t pending() const { return pending_.size(); }
    /// Writes what waits. If that fails, these entries are not in the archive, and later ones can be.
    Result<> flush();
    /// Entries that could not be written.
    std::uint64_t unwritten() const { return unwritten_; }

  private:
    HarFile(std::string path, Fd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
    /// 0 or errno.
    int write_at(off_t position, std::string_view text) const;

    std::string path_;
    Fd fd_;
    std::string pending_;
    off_t position_ = 0;   ///< of the end
    off_t page_start_ = 0; ///< where the page's time stands
    bool page_begun_ = false;
    std::uint64_t waiting_ = 0;
    std::uint64_t written_ = 0;
    std::uint64_t unwritten_ = 0;
};

} // namespace netctl::trace
