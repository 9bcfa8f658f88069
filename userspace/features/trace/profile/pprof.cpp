// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/profile/pprof.hpp"

#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include <zlib.h>

namespace netctl::trace::profile {

namespace {

/// A message of Protocol Buffers, field by field (their documentation, "Encoding").
class Message {
  public:
    Message& number(unsigned field, std::uint64_t value) {
        varint(field << 3);
        varint(value);
        return *this;
    }
    Message& bytes(unsigned field, std::string_view value) {
        varint(field << 3 | 2);
        varint(value.size());
        text_ += value;
        return *this;
    }
    Message& message(unsigned field, const Message& value) { return bytes(field, value.text_); }
    /// Packed.
    Message& numbers(unsigned field, const std::vector<std::uint64_t>& values) {
        Message packed;
        for (const std::uint64_t value : values)
            packed.varint(value);
        return message(field, packed);
    }
    const std::string& text() const { return text_; }

  private:
    void varint(std::uint64_t value) {
        for (; value >= 0x80; value >>= 7)
            text_ += static_cast<char>(value | 0x80);
        text_ += static_cast<char>(value);
    }

    std::string text_;
};

/// Names are told by their numbers; 0 is the empty one.
class Strings {
  public:
    std::uint64_t of(const std::string& text) {
        const auto [known, first] = known_.try_emplace(text, all_.size());
        if (first)
            all_.push_back(text);
        return known->second;
    }
    const std::vector<std::string>& all() const { return all_; }

  private:
    std::vector<std::string> all_{""};
    std::map<std::string, std::uint64_t> known_{{"", 0}};
};

Result<std::string> gzip(const std::string& text) {
    z_stream stream{};
    constexpr int with_gzip_header = 16 + MAX_WBITS;
    if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, with_gzip_header, 8,
                     Z_DEFAULT_STRATEGY) != Z_OK)
        return Error::failed("cannot compress the profile");
    std::string packed(deflateBound(&stream, text.size()), '\0');
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
    stream.avail_in = static_cast<uInt>(text.size());
    stream.next_out = reinterpret_cast<Bytef*>(packed.data());
    stream.avail_out = static_cast<uInt>(packed.size());
    const int status = deflate(&stream, Z_FINISH);
    packed.resize(stream.total_out);
    deflateEnd(&stream);
    if (status != Z_STREAM_END)
        return Error::failed("cannot compress the profile");
    return packed;
}

} // namespace

Result<std::string> pprof(const Stacks& stacks, const PprofAbout& about) {
    Strings strings;
    Message profile;
    const std::uint64_t period =
        about.waits ? 1 : 1'000'000'000 / std::max<std::uint64_t>(about.hertz, 1);
    const auto type_of = [&](const char* type, const char* unit) {
        return Message().number(1, strings.of(type)).number(2, strings.of(unit));
    };
    const Message time = type_of(about.waits ? "waiting" : "cpu", "nanoseconds");
    profile.message(1, type_of(about.waits ? "waits" : "samples", "count")).message(1, time);
    for (const Stack& stack : stacks.stacks) {
        std::vector<std::uint64_t> locations; // the innermost first
        for (auto frame = stack.frames.rbegin(); frame != stack.frames.rend(); ++frame)
            locations.push_back(*frame + std::uint64_t{1});
        profile.message(
            2, Message()
                   .numbers(1, locations)
                   .numbers(2, {stack.samples, stack.amount * period})
                   .message(3, Message()
                                   .number(1, strings.of("process"))
                                   .number(2, strings.of(shown(stack.comm))))
                   .message(3, Message().number(1, strings.of("pid")).number(3, stack.pid)));
    }
    for (std::size_t i = 0; i < stacks.frames.size(); ++i) {
        const Frame& frame = stacks.frames[i];
        const std::uint64_t name = strings.of(shown(frame.function));
        profile.message(4, Message().number(1, i + 1).message(4, Message().number(1, i + 1)));
        profile.message(5, Message().number(1, i + 1).number(2, name).number(3, name).number(
                               4, strings.of(shown(frame.file))));
    }
    profile.number(9, static_cast<std::uint64_t>(about.time_ns))
        .number(10, static_cast<std::uint64_t>(about.duration_ns))
        .message(11, time)
        .number(12, period);
    for (const std::string& text : strings.all())
        profile.bytes(6, text);
    return gzip(profile.text());
}

} // namespace netctl::trace::profile
