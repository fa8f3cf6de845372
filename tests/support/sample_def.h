// The least of a definition that is accepted.
#pragma once

#include <string>

#include "conf/domain.h"

namespace virtuserns {

inline DomainDef sample_def(const std::string& name) {
  DomainDef def;
  def.name = name;
  def.max_memory_kib = 262'144;
  def.os.arch = "x86_64";
  def.os.init = "/sbin/init";
  FilesystemDef root;
  root.source = "/srv/" + name;
  root.target = "/";
  def.filesystems.push_back(root);
  return def;
}

}  // namespace virtuserns
