// onceover_image → what csrc/image reads.
#pragma once

#include "image/image_view.h"
#include "onceover.h"

namespace onceover {

// The part of the image that its ROI names. Throws Error(kUsage) for struct_size, kInput for what cannot be read.
ImageView view_image(const onceover_image& image);

}  // namespace onceover
