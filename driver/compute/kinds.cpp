#include "driver/compute/kinds.h"

namespace virtuserns::compute {

Kind kind_of(const Error& error) {
  if (error.sys_errno == ENOSPC || error.sys_errno == EDQUOT) return {"no-space"};
  switch (error.code) {
    case VIR_ERR_NO_DOMAIN:
      return {"instance-not-found"};
    case VIR_ERR_DOM_EXIST:
      return {"instance-exists"};
    case VIR_ERR_OPERATION_INVALID:
      return {"invalid-state"};
    case VIR_ERR_NO_SUPPORT:
    case VIR_ERR_OPERATION_UNSUPPORTED:
    case VIR_ERR_ARGUMENT_UNSUPPORTED:
    case VIR_ERR_CONFIG_UNSUPPORTED:
      return {"unsupported"};
    case VIR_ERR_INVALID_ARG:
    case VIR_ERR_XML_ERROR:
    case VIR_ERR_XML_DETAIL:
      return {"invalid"};
    case kImageMissing:
      return {"image-missing"};
    case kImageRefused:
      return {"image-refused"};
    case kImageTooLarge:
      return {"image-too-large"};
    case VIR_ERR_NO_MEMORY:
      return {"no-space"};
    case VIR_ERR_DEVICE_MISSING:
      return {"device-not-found"};
    case VIR_ERR_RESOURCE_BUSY:
      return {"busy", true};
    case kUnavailable:
    case VIR_ERR_NO_CONNECT:
    case VIR_ERR_OPERATION_TIMEOUT:
      return {"unavailable", true};
    default:
      return {"internal"};
  }
}

}  // namespace virtuserns::compute
