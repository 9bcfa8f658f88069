// SPDX-License-Identifier: GPL-2.0-only
#include "features/trace/profile/flame_graph.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "core/text.hpp"
#include "features/trace/spans.hpp"

namespace netctl::trace::profile {

namespace {

constexpr double width = 1200;
constexpr double frame_height = 17;
constexpr double head_height = 54;
constexpr double character_width = 7; ///< of the font, at most

struct Node {
    std::uint64_t amount = 0;
    Frame::Kind kind = Frame::Kind::user;
    std::map<std::string, Node> calls; ///< by what is shown of their names
};

std::string xml(std::string_view text) {
    std::string escaped;
    for (const char c : shown(text))
        switch (c) {
        case '&': escaped += "&amp;"; break;
        case '<': escaped += "&lt;"; break;
        case '>': escaped += "&gt;"; break;
        case '"': escaped += "&quot;"; break;
        default: escaped += c;
        }
    return escaped;
}

/// As far as a frame has room for it.
std::string cut_to(const std::string& name, double pixels) {
    const auto room = static_cast<unsigned>(std::max(0.0, (pixels - 6) / character_width));
    if (room < 3)
        return {};
    const Text text(name);
    return columns(text.string()) <= room ? text.string()
                                          : text.first_columns(room - 2).string() + "..";
}

/// Of one name always the same, so that graphs may be compared.
std::string color_of(const std::string& name, Frame::Kind kind) {
    std::uint32_t hash = 2166136261u; // FNV-1a
    for (const char c : name)
        hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
    const unsigned shade = hash % 56, other = hash / 56 % 56;
    switch (kind) {
    case Frame::Kind::kernel: return fmt::format("rgb({},{},90)", 200 + shade, 120 + other);
    case Frame::Kind::compiled: return fmt::format("rgb({},{},90)", 90 + other, 180 + shade);
    default: return fmt::format("rgb({},{},{})", 200 + shade, 170 + other, 60 + other);
    }
}

class Drawing {
  public:
    Drawing(std::uint64_t all, bool waits) : all_(static_cast<double>(all)), waits_(waits) {}

    /// The deepest that is drawn, from 0 on.
    std::size_t draw(const std::string& name, const Node& node, std::uint64_t begin,
                     std::size_t depth, double height) {
        const double left = part(begin), share = part(node.amount);
        if (share * width < 0.1)
            return depth;
        const double y = height - static_cast<double>(depth + 1) * frame_height;
        fmt::format_to(
            std::back_inserter(frames),
            "<g class=\"f\" data-x=\"{:.7f}\" data-w=\"{:.7f}\" data-d=\"{}\"><title>{} ({}, "
            "{:.2f}%)</title><rect x=\"{:.2f}\" y=\"{:.0f}\" width=\"{:.2f}\" height=\"16\" "
            "fill=\"{}\"/><text x=\"{:.2f}\" y=\"{:.0f}\">{}</text></g>\n",
            left, share, depth, xml(name), amount(node.amount), share * 100, left * width, y,
            share * width, depth == 0 ? "rgb(200,200,200)" : color_of(name, node.kind),
            left * width + 3, y + 12, xml(cut_to(name, share * width)));
        std::size_t deepest = depth;
        for (const auto& [call, inner] : node.calls) {
            deepest = std::max(deepest, draw(call, inner, begin, depth + 1, height));
            begin += inner.amount;
        }
        return deepest;
    }

    std::string frames;

  private:
    double part(std::uint64_t amount) const { return static_cast<double>(amount) / all_; }
    std::string amount(std::uint64_t value) const {
        return waits_ ? span_text(value) : fmt::format("{} samples", value);
    }

    double all_;
    bool waits_;
};

// In a file of its own it would have to be loaded from somewhere.
constexpr const char* script = R"js(
"use strict";
const W = 1200, C = 7, all = [...document.querySelectorAll("g.f")];
const full = new Map(all.map(g => [g, g.querySelector("title").textContent.replace(/ \([^()]*\)$/, "")]));
const of = (g, k) => Number(g.getAttribute("data-" + k));
function place(g, x, w, faded) {
  const r = g.querySelector("rect"), t = g.querySelector("text"), n = full.get(g), room = Math.floor((w * W - 6) / C);
  g.style.display = w * W < 0.1 ? "none" : "";
  g.style.opacity = faded ? 0.5 : 1;
  r.setAttribute("x", x * W); r.setAttribute("width", w * W);
  t.setAttribute("x", x * W + 3);
  t.textContent = room < 3 ? "" : n.length <= room ? n : n.slice(0, room - 2) + "..";
}
function zoom(to) {
  const a = of(to, "x"), w = of(to, "w"), d = of(to, "d"), e = 1e-7;
  for (const g of all) {
    const x = of(g, "x"), y = of(g, "w");
    if (of(g, "d") < d) place(g, 0, x <= a + e && x + y >= a + w - e ? 1 : 0, true);
    else if (x >= a - e && x + y <= a + w + e) place(g, (x - a) / w, y / w, false);
    else place(g, 0, 0, false);
  }
}
function search(word) {
  const lower = word.toLowerCase();
  let end = -1, sum = 0;
  const hits = all.filter(g => { const hit = lower !== "" && of(g, "d") > 0 && full.get(g).toLowerCase().includes(lower);
    g.classList.toggle("m", hit); return hit; });
  hits.sort((a, b) => of(a, "x") - of(b, "x") || of(b, "w") - of(a, "w"));
  for (const g of hits) { const x = of(g, "x"), y = x + of(g, "w"); if (y > end + 1e-9) { sum += y - Math.max(x, end); end = y; } }
  document.getElementById("found").textContent = lower === "" ? "" : "\u201c" + word + "\u201d: " + (sum * 100).toFixed(2) + "%";
}
function ask() { const word = prompt("Search for functions that have this in their name:", ""); if (word !== null) search(word); }
for (const g of all) g.addEventListener("click", () => zoom(g));
document.getElementById("whole").addEventListener("click", () => zoom(all[0]));
document.getElementById("search").addEventListener("click", ask);
window.addEventListener("keydown", k => { if (k.key === "/" || ((k.ctrlKey || k.metaKey) && k.key === "f")) { k.preventDefault(); ask(); } });
)js";

} // namespace

std::string flame_graph(const Stacks& stacks, const std::string& title, bool waits) {
    Node root;
    root.amount = stacks.amount;
    std::size_t deepest = 0;
    for (const Stack& stack : stacks.stacks) {
        Node* node = &root.calls[stack.comm];
        node->amount += stack.amount;
        for (const std::uint32_t index : stack.frames) {
            const Frame& frame = stacks.frames[index];
            node = &node->calls[folded_name(frame)];
            node->kind = frame.kind;
            node->amount += stack.amount;
        }
        deepest = std::max(deepest, stack.frames.size() + 1);
    }
    const double height = head_height + static_cast<double>(deepest + 1) * frame_height + 8;
    Drawing drawing(std::max<std::uint64_t>(root.amount, 1), waits);
    drawing.draw("all", root, 0, 0, height - 8);
    return fmt::format(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" width=\"100%\" "
        "font-family=\"monospace\" font-size=\"11\">\n"
        "<style>rect{{stroke:white;stroke-width:0.5}} g.f{{cursor:pointer}} g.f:hover "
        "rect{{stroke:black}} g.m rect{{fill:rgb(230,60,230)}} .b{{cursor:pointer;"
        "text-decoration:underline}} text{{pointer-events:none}} text.b{{pointer-events:all}}"
        "</style>\n"
        "<rect x=\"0\" y=\"0\" width=\"{0:.0f}\" height=\"{1:.0f}\" fill=\"white\"/>\n"
        "<text x=\"{2:.0f}\" y=\"20\" font-size=\"15\" text-anchor=\"middle\">{3}</text>\n"
        "<text id=\"whole\" class=\"b\" x=\"10\" y=\"40\">All of it</text>\n"
        "<text id=\"search\" class=\"b\" x=\"100\" y=\"40\">Search</text>\n"
        "<text id=\"found\" x=\"170\" y=\"40\"></text>\n"
        "{4}<script><![CDATA[{5}]]></script>\n</svg>\n",
        width, height, width / 2, xml(title), drawing.frames, script);
}

} // namespace netctl::trace::profile
