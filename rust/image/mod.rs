//! Encoded images to pixels: JPEG and PNG into 8-bit RGB, equal to what `mx.image.imdecode` gives.
//!
//! [`Image`] reads one image, and knows its size before anything is allocated for it. [`batch`] decodes many
//! images in parallel into one buffer, such as the [`records`] of files. A valid file gives exactly the pixels that `MXNet` gives. A damaged
//! file is an error, never a picture with a grey part: `jpeg` checks the markers more strictly than a decoder
//! that wants to show something, and everything that the decoder finds wrong is an error, too. [`augment`]
//! makes decoded images into the batches that networks take, [`looks`] says in numbers what
//! they look like, and [`twins`] whether two of them are the same picture.

pub mod augment;
pub mod batch;
mod contain;
mod decode;
mod exif;
mod jpeg;
pub mod looks;
mod planes;
mod png;
pub mod records;
mod turn;
pub mod twins;

pub use contain::quieten;
pub use decode::{Fault, Image, Size};
