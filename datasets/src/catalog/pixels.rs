//! Pixels that stand in an object without a header, as data sets from before image files had become cheap keep them.

use bytes::Bytes;

/// How the pixels of one image lie in an object, one byte a channel, rows from the top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawPixels {
    pub(super) width: u16,
    pub(super) height: u16,
    pub(super) channels: PixelOrder,
}

/// The order of the channels of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PixelOrder {
    /// One: gray.
    Gray,
    /// `[3, height, width]`: all of red, then green, then blue.
    Planes,
    /// `[height, width, 3]`.
    Rgb,
}

impl RawPixels {
    /// Bytes in the object.
    pub(super) fn bytes(&self) -> u64 {
        let channels = match self.channels {
            PixelOrder::Gray => 1,
            PixelOrder::Planes | PixelOrder::Rgb => 3,
        };
        u64::from(self.width) * u64::from(self.height) * channels
    }

    /// Bytes of [`RawPixels::file`].
    pub(super) fn file_bytes(&self) -> u64 {
        self.header().len() as u64 + self.bytes()
    }

    /// The pixels as an image file, which the decoder reads like any other: binary PGM or PPM, the least that is one.
    pub(super) fn file(&self, pixels: &[u8]) -> Bytes {
        let mut file = self.header().into_bytes();
        match self.channels {
            PixelOrder::Gray | PixelOrder::Rgb => file.extend_from_slice(pixels),
            PixelOrder::Planes => {
                let (red, rest) = pixels.split_at(pixels.len() / 3);
                let (green, blue) = rest.split_at(red.len());
                let triples = red.iter().zip(green).zip(blue);
                file.extend(triples.flat_map(|((red, green), blue)| [*red, *green, *blue]));
            }
        }
        file.into()
    }

    fn header(&self) -> String {
        let magic = match self.channels {
            PixelOrder::Gray => "P5",
            PixelOrder::Planes | PixelOrder::Rgb => "P6",
        };
        format!("{magic}\n{} {}\n255\n", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_become_pixels_and_gray_stays_gray() {
        let planes = RawPixels { width: 2, height: 1, channels: PixelOrder::Planes };
        assert_eq!(planes.bytes(), 6);
        let file = planes.file(&[1, 2, 3, 4, 5, 6]);
        assert_eq!(file, [b"P6\n2 1\n255\n".as_slice(), &[1, 3, 5, 2, 4, 6]].concat());
        assert_eq!(file.len() as u64, planes.file_bytes());
        let gray = RawPixels { width: 2, height: 1, channels: PixelOrder::Gray };
        assert_eq!(gray.file(&[7, 8]), [b"P5\n2 1\n255\n".as_slice(), &[7, 8]].concat());
    }
}
