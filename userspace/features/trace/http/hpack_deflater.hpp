// SPDX-License-Identifier: GPL-2.0-only
//
// nghttp2's compressor of heads, for tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <nghttp2/nghttp2.h>

namespace netctl::trace {

using FieldList = std::vector<std::pair<std::string, std::string>>;

class Deflater {
  public:
    /// `table`: how much the other side allows for.
    explicit Deflater(std::size_t table = 4096) {
        nghttp2_hd_deflate_new(&deflater_, table);
        if (table != 4096)
            resize(table);
    }
    Deflater(const Deflater&) = delete;
    Deflater& operator=(const Deflater&) = delete;
    ~Deflater() { nghttp2_hd_deflate_del(deflater_); }

    void resize(std::size_t table) { nghttp2_hd_deflate_change_table_size(deflater_, table); }
    std::string block(const FieldList& list, bool indexed = true) {
        std::vector<nghttp2_nv> fields;
        const auto bytes = [](const std::string& text) {
            return reinterpret_cast<std::uint8_t*>(const_cast<char*>(text.data()));
        };
        for (const auto& [name, value] : list)
            fields.push_back({bytes(name), bytes(value), name.size(), value.size(),
                              static_cast<std::uint8_t>(indexed ? NGHTTP2_NV_FLAG_NONE
                                                                : NGHTTP2_NV_FLAG_NO_INDEX)});
        std::string out(nghttp2_hd_deflate_bound(deflater_, fields.data(), fields.size()), '\0');
        const auto size =
            nghttp2_hd_deflate_hd(deflater_, bytes(out), out.size(), fields.data(), fields.size());
        out.resize(static_cast<std::size_t>(size));
        return out;
    }

  private:
    nghttp2_hd_deflater* deflater_ = nullptr;
};

} // namespace netctl::trace
