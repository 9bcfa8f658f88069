// SPDX-License-Identifier: GPL-2.0-only
//
// HTTP/2's header compression (HPACK, RFC 7541) as an observer sees it, who may come late and lose bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

struct nghttp2_hd_inflater;

namespace netctl::trace {

/// A name or a value; empty: it stands in a part of the table that was not seen.
using HpackText = std::optional<std::string_view>;
using HpackField = std::function<void(HpackText name, HpackText value)>;

/// Decodes the blocks of a direction whose table is not known from its beginning. What is put into the table
/// while it looks on is known from then on, as an index counts from the newest entry; all else is told as
/// unknown, and nothing is ever taken for something else. It does not follow evictions: a sender does not
/// refer to what is gone.
class LateHpack {
  public:
    /// Entries known are kept up to this, as RFC 7541 4.1 counts them; those before count as unknown.
    static constexpr std::size_t table_limit = 64 * 1024;

    /// One whole block; `field` is called for each in order, with text that lives until it returns. False if
    /// it is none: then what is known of the table is forgotten.
    bool decode(std::string_view block, const HpackField& field);
    /// Blocks passed that were not seen.
    void forget();
    /// Of the table, in bytes.
    std::size_t held() const { return size_; }

  private:
    struct Entry {
        std::optional<std::string> name;
        std::optional<std::string> value;
        std::size_t size() const {
            return 32 + (name ? name->size() : 0) + (value ? value->size() : 0);
        }
    };
    bool decode_fields(std::string_view block, const HpackField& field);
    bool look_up(std::uint64_t index, HpackText& name, HpackText* value) const;
    void insert(HpackText name, std::string_view value);

    std::deque<Entry> table_; ///< newest first
    std::size_t size_ = 0;
};

/// The blocks of one direction: by nghttp2 as long as all of them were seen, and by LateHpack from where one was
/// not.
class HeaderDecoder {
  public:
    /// `seen`: from the connection's beginning.
    explicit HeaderDecoder(bool seen);
    HeaderDecoder(const HeaderDecoder&) = delete;
    HeaderDecoder& operator=(const HeaderDecoder&) = delete;
    ~HeaderDecoder();

    /// One whole block, as LateHpack::decode. False if it is none, and from there on the table is not known.
    bool decode(std::string_view block, const HpackField& field);
    /// A block passed that was not seen, or a part of one.
    void lose();
    /// Whether the table is known whole.
    bool whole() const { return inflater_ != nullptr; }
    /// What it holds in memory, roughly.
    std::size_t held() const;

  private:
    struct Free {
        void operator()(nghttp2_hd_inflater* inflater) const;
    };
    std::unique_ptr<nghttp2_hd_inflater, Free> inflater_;
    LateHpack late_;
};

} // namespace netctl::trace
