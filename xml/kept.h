// Elements that are kept as text: the canonical form, and what a parser does with the names it does not know.
//
// Canonical form: indented by two blanks from column 0, no trailing line end, every namespace it needs declared
// inside it; a line end that belongs to a text is written "&#10;" (append_canonical turns it back), so a raw one is
// layout.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "conf/domain.h"
#include "xml/node.h"

namespace virtuserns::xml {

// kLibvirt: single quotes and no comments, as virBuffer output; kMetadata: double quotes and comments, as libxml2
// prints, which is what libvirt does with <metadata>.
enum class Dialect { kLibvirt, kMetadata };

[[nodiscard]] std::string canonical(const Node& node, Dialect dialect = Dialect::kLibvirt);

using Names = std::initializer_list<std::string_view>;

// Appends to `out` every attribute of `node` that is not in `attributes` ("<prefix>@name") and every child that is
// not in `children` ("<prefix>name").
void keep_rest(const Node& node, Names attributes, Names children, std::vector<KeptXml>& out,
               std::string_view prefix = {});

}  // namespace virtuserns::xml
