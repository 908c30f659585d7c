"""A network that reads luminance crops, behind the door of networks that read RGB faces."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fevertools.train.models.student import Output, Student

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as `preprocess.to_luminance`


class GrayTeacher(nn.Module):
    """RGB faces of any size -> luminance at the size of a student's crops -> the student.

    Args:
        student: reads crops of `crop` pixels.
        crop: height and width.
    """

    luma: Tensor

    def __init__(self, student: Student, crop: int) -> None:
        super().__init__()
        self.student, self.crop = student, crop
        self.register_buffer("luma", torch.tensor(LUMA), persistent=False)

    def forward(self, faces: Tensor) -> Output:
        """Faces (N, H, W, 3), RGB 0-255 of any dtype, framed as the student's crops are."""
        luminance = (faces.float() @ self.luma)[:, None]  # (N, 1, H, W)
        crops = F.interpolate(luminance, (self.crop, self.crop), mode="bilinear", antialias=True)
        return self.student(crops.permute(0, 2, 3, 1))  # type: ignore[no-any-return]
