// SPDX-License-Identifier: GPL-2.0-only
//
// The reader of DNS answers, run over messages that were made and then damaged, against a reader written apart from
// it, of RFC 1035 alone. NETCTL_DNS_MESSAGES is how many.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <bpf/bpf.h>
#include <gtest/gtest.h>
#include <net/if.h>

#include "bpf/object.hpp"
#include "bpf/standalone.hpp"
#include "core/address.hpp"
#include "features/set/names.hpp"
#include "name_reader.skel.h"
#include "sys/netns.hpp"
#include "testing/must.hpp"

namespace netctl::set {

namespace {

using testing::must;
using Bytes = std::vector<std::uint8_t>;
/// Addresses as the wire has them.
using Addresses = std::set<Bytes>;

// ---- the reader written apart ----

struct Broken {};

class Message {
  public:
    explicit Message(const Bytes& bytes) : bytes_(bytes) {}

    unsigned u8(std::size_t at) const {
        if (at >= bytes_.size())
            throw Broken();
        return bytes_[at];
    }
    unsigned u16(std::size_t at) const { return u8(at) << 8 | u8(at + 1); }

    /// Labels in lower case, and where the name's place ends.
    std::pair<std::vector<std::string>, std::size_t> name(std::size_t at) const {
        std::vector<std::string> labels;
        std::optional<std::size_t> end;
        std::size_t from = at, size = 0;
        unsigned hops = 0;
        for (;;) {
            const unsigned length = u8(at);
            if (length >= 0xc0) {
                const std::size_t target = u16(at) & 0x3fffU;
                if (!end)
                    end = at + 2;
                if (target < 12 || target >= from || ++hops > NC_DNS_HOPS)
                    throw Broken();
                from = at = target;
                continue;
            }
            if (length > 63)
                throw Broken();
            at++;
            if (length == 0)
                return {labels, end.value_or(at)};
            std::string label;
            for (unsigned i = 0; i < length; i++, at++)
                label += static_cast<char>(u8(at) >= 'A' && u8(at) <= 'Z' ? u8(at) + 32 : u8(at));
            size += 1 + length;
            if (size > NC_NAME_BYTES)
                throw Broken();
            labels.push_back(label);
        }
    }

    std::size_t size() const { return bytes_.size(); }
    Bytes part(std::size_t at, std::size_t count) const {
        return {bytes_.begin() + static_cast<long>(at),
                bytes_.begin() + static_cast<long>(at + count)};
    }

  private:
    const Bytes& bytes_;
};

using Labels = std::vector<std::string>;

bool is_wanted(const Labels& name) {
    const auto is = [&](std::initializer_list<const char*> other) {
        return std::ranges::equal(name, other);
    };
    if (is({"example", "test"}) || is({"b", "example", "test"}))
        return true;
    return name.size() > 2 && name[name.size() - 1] == "test" && name[name.size() - 2] == "wild";
}

/// Of the addresses of one name, those up to where the message breaks.
void read_records(const Message& message, std::size_t at, Labels owner, Addresses& learnt) {
    const unsigned count = std::min<unsigned>(message.u16(6), NC_DNS_RECORDS);
    for (unsigned i = 0; i < count; i++) {
        const auto [name, behind] = message.name(at);
        const unsigned type = message.u16(behind), kind = message.u16(behind + 2),
                       length = message.u16(behind + 8);
        const std::size_t data = behind + 10;
        if (data + length > message.size())
            throw Broken();
        at = data + length;
        if (name != owner || kind != 1)
            continue;
        if ((type == 1 && length == 4) || (type == 28 && length == 16))
            learnt.insert(message.part(data, length));
        if (type == 5) {
            const auto [target, end] = message.name(data);
            if (end != at)
                throw Broken();
            owner = target;
        }
    }
}

Addresses read_apart(const Bytes& bytes) {
    Addresses learnt;
    const Message message(bytes);
    std::vector<Labels> wanted;
    std::size_t at = 12;
    try {
        if ((message.u16(2) & 0x8000U) == 0 || (message.u16(2) & 0x780fU) != 0 ||
            message.u16(4) > NC_DNS_QUESTIONS)
            return learnt;
        for (unsigned i = 0; i < message.u16(4); i++) {
            const auto [name, behind] = message.name(at);
            static_cast<void>(message.u16(behind + 2));
            at = behind + 4;
            if (is_wanted(name))
                wanted.push_back(name);
        }
    } catch (const Broken&) {
        return learnt;
    }
    for (const Labels& name : wanted) {
        try {
            read_records(message, at, name, learnt);
        } catch (const Broken&) { // the next name all the same
        }
    }
    return learnt;
}

// ---- messages ----

class Maker {
  public:
    explicit Maker(unsigned seed) : random_(seed) {}

    unsigned below(unsigned bound) { return static_cast<unsigned>(random_() % bound); }

    Bytes message() {
        bytes_.assign(12, 0);
        places_.clear();
        put16(2, 0x8180);
        const unsigned questions = below(8) == 0 ? below(6) : 1;
        put16(4, questions);
        for (unsigned i = 0; i < questions; i++) {
            name(below(5) != 0);
            word(below(2) ? 1 : 28);
            word(1);
        }
        const unsigned records = below(30) == 0 ? 60 + below(10) : below(7);
        put16(6, records);
        for (unsigned i = 0; i < records; i++)
            record();
        return bytes_;
    }

    /// Some bytes become others, or the end is cut off, or a part is repeated.
    void damage(Bytes& bytes) {
        switch (below(6)) {
        case 0: return;
        case 1: bytes.resize(12 + below(static_cast<unsigned>(bytes.size()) - 11)); return;
        case 2: {
            const std::size_t from = 12 + below(static_cast<unsigned>(bytes.size()) - 11);
            const Bytes part(bytes.begin() + static_cast<long>(from), bytes.end());
            bytes.insert(bytes.end(), part.begin(), part.end());
            return;
        }
        default:
            for (unsigned i = 0; i <= below(4); i++)
                bytes[2 + below(static_cast<unsigned>(bytes.size()) - 2)] =
                    static_cast<std::uint8_t>(below(3) == 0 ? below(256)
                                                            : 0xc0 + below(2) * below(64));
        }
    }

  private:
    void put16(std::size_t at, unsigned value) {
        bytes_[at] = static_cast<std::uint8_t>(value >> 8);
        bytes_[at + 1] = static_cast<std::uint8_t>(value);
    }
    void word(unsigned value) {
        bytes_.resize(bytes_.size() + 2);
        put16(bytes_.size() - 2, value);
    }
    void name(bool good) {
        static const std::vector<std::string> all{
            "\7example\4test",    "\7EXAMPLE\4tEst", "\1b\7example\4test", "\1a\4wild\4test",
            "\1a\1b\4wild\4TEST", "\4wild\4test",    "\7notwild\4test",    "\5other\4test"};
        if (!places_.empty() && below(2) == 0) {
            word(0xc000 | places_[below(static_cast<unsigned>(places_.size()))]);
            return;
        }
        if (bytes_.size() < 0x3fff)
            places_.push_back(static_cast<unsigned>(bytes_.size()));
        const std::string& text = all[good ? below(5) : below(8)];
        bytes_.insert(bytes_.end(), text.begin(), text.end());
        if (!places_.empty() && below(10) == 0)
            word(0xc000 | places_.front());
        else
            bytes_.push_back(0);
    }
    void record() {
        name(true);
        const unsigned type = std::array{1U, 28U, 5U, 16U}[below(4)];
        word(type);
        word(below(20) == 0 ? 3 : 1);
        word(0);
        word(300);
        const std::size_t length = bytes_.size();
        word(0);
        if (type == 5)
            name(true);
        else
            for (unsigned i = type == 28 ? 16 : 4; i > 0; i--)
                bytes_.push_back(static_cast<std::uint8_t>(below(256)));
        put16(length, static_cast<unsigned>(bytes_.size() - length - 2));
    }

    std::mt19937 random_;
    Bytes bytes_;
    std::vector<unsigned> places_; ///< where names begin
};

// ---- the program ----

/// A frame with a datagram between 192.0.2.1, who asks, and 192.0.2.53.
Bytes frame_of(const Bytes& message, bool answer) {
    constexpr unsigned asker = 4000, dns = 53;
    const std::array<std::uint8_t, 4> host{192, 0, 2, 1}, resolver{192, 0, 2, 53};
    Bytes frame(14 + 20 + 8);
    const auto put16 = [&](std::size_t at, std::size_t value) {
        frame[at] = static_cast<std::uint8_t>(value >> 8);
        frame[at + 1] = static_cast<std::uint8_t>(value);
    };
    put16(12, 0x0800);
    frame[14] = 0x45;
    put16(16, 20 + 8 + message.size());
    frame[22] = 64;
    frame[23] = 17;
    std::ranges::copy(answer ? resolver : host, frame.begin() + 26);
    std::ranges::copy(answer ? host : resolver, frame.begin() + 30);
    put16(34, answer ? dns : asker);
    put16(36, answer ? asker : dns);
    put16(38, 8 + message.size());
    frame.insert(frame.end(), message.begin(), message.end());
    return frame;
}

class Reader {
  public:
    Reader()
        : v4_(must(bpf::create_standalone("set_host4", 4096))),
          v6_(must(bpf::create_standalone("set_host6", 4096))),
          skeleton_(must(bpf::Skeleton<name_reader>::open())) {
        const bpf::Object object = skeleton_.object();
        must(object.reuse("v4", v4_));
        must(object.reuse("v6", v6_));
        must(object.set_max_entries("learnt", 4096));
        must(object.set_max_entries("places", 4096));
        must(object.load());
        const std::uint32_t zero = 0;
        const nc_name_settings settings{NC_ABI_VERSION,
                                        static_cast<__u32>(must(sys::current_netns_inode())),
                                        60,
                                        86400,
                                        4096,
                                        0};
        must(must(object.map("settings")).update(&zero, &settings));
        nc_resolver resolver{};
        std::memcpy(resolver.address, must(Address::parse("192.0.2.53")).bytes.data(), 4);
        resolver.family = 4;
        must(must(object.map("resolvers")).update(&resolver, &zero));
        for (const char* text : {"example.test", "b.example.test", "*.wild.test"})
            want(must(parse_wanted_name(text)));
        in_ = must(object.program("names_in"));
        out_ = must(object.program("names_out"));
    }

    /// The question that a message begins with, and then the message as its answer.
    void read(const Bytes& message) {
        Bytes question = message;
        question[2] = 1;
        question[3] = 0;
        run(out_, frame_of(question, false));
        run(in_, frame_of(message, true));
    }

    /// What was learnt, which is forgotten.
    Addresses take() {
        Addresses all;
        for (const auto& [map, size] : {std::pair{&v4_, 4}, {&v6_, 16}})
            for (const std::uint8_t* key : must(map->keys())) {
                all.insert(Bytes(key, key + size));
                must(map->erase(key));
            }
        return all;
    }

  private:
    void want(const WantedName& wanted) {
        nc_name_key key{NC_NAME_HASH_START, wanted.below ? 1U : 0U, 0};
        for (std::size_t i = wanted.name.length; i-- > 0;)
            key.hash = nc_name_hash_on(key.hash, wanted.name.wire[i]);
        must(must(skeleton_.object().map("names")).update(&key, &wanted.name));
    }

    static void run(const bpf::Program& program, const Bytes& frame) {
        __sk_buff context{};
        context.ifindex = if_nametoindex("names0");
        LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame.data(),
                    .data_size_in = static_cast<__u32>(frame.size()), .ctx_in = &context,
                    .ctx_size_in = sizeof context);
        ASSERT_EQ(bpf_prog_test_run_opts(program.fd(), &options), 0) << std::strerror(errno);
        EXPECT_EQ(options.retval & 1U, 1U); // nothing is ever dropped
    }

    bpf::RawMap v4_, v6_;
    bpf::Skeleton<name_reader> skeleton_;
    bpf::Program in_, out_;
};

unsigned how_many() {
    const char* said = std::getenv("NETCTL_DNS_MESSAGES");
    if (said != nullptr)
        return static_cast<unsigned>(std::atoi(said));
    return std::getenv("NETCTL_VM") != nullptr ? 1000 : 20000;
}

constexpr std::size_t longest = 3000;

std::string hex(const Bytes& bytes) {
    std::string text;
    for (const std::uint8_t byte : bytes)
        text += fmt::format("{:02x}", byte);
    return text;
}

TEST(NamesProg, ReadsAsAnotherReaderDoes) {
    const auto own = must(sys::NetnsGuard::make());
    ASSERT_EQ(std::system("ip link add names0 type veth peer name names1"), 0); // not loopback
    Reader reader;
    Maker maker(17);
    std::size_t brought = 0;
    for (unsigned i = 0; i < how_many(); i++) {
        Bytes message = maker.message();
        message[0] = static_cast<std::uint8_t>(i >> 8);
        message[1] = static_cast<std::uint8_t>(i);
        maker.damage(message);
        message.resize(std::min(message.size(), longest)); // a test run takes a page
        reader.read(message);
        const Addresses learnt = reader.take(), wanted = read_apart(message);
        ASSERT_EQ(learnt, wanted) << "message " << i << ": " << hex(message);
        brought += wanted.size();
    }
    EXPECT_GT(brought, how_many() / 4); // or nothing was compared
}

} // namespace

} // namespace netctl::set
