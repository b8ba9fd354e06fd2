//! Grids of samples and reconstructions as PNG files.
use std::io::BufWriter;
use std::path::Path;
use tch::{Kind, Tensor};
use thruway::data::unit_interval;
use thruway::error::{Error, Result};
use thruway::estimators::{Estimator, Knobs};
use thruway::nn::CategoricalVae;
use thruway::noise::{HostNoise, Noise};

const SIDE: i64 = 28;

/// `samples.png`: 8x8 decoded codes from the uniform prior. `reconstructions.png`: 8 test images over their
/// reconstructions. From a stream of their own.
pub fn write(model: &CategoricalVae, test: &Tensor, seed: i64, dir: &Path) -> Result<()> {
    let _guard = tch::no_grad_guard();
    let mut noise = HostNoise::new(seed as u64 ^ 0x5A11);
    let st = Estimator::St.build(&Knobs::default())?.drop_in()?;
    let prior = Tensor::f_zeros([64, model.latents, model.categories], (Kind::Float, test.device()))?;
    let codes = st.draw(&prior, None, &mut noise as &mut dyn Noise)?.value;
    grid(&model.decode(&codes)?.f_sigmoid()?, 8, &dir.join("samples.png"))?;
    let x = unit_interval(&test.f_narrow(0, 0, 8)?);
    let codes = st.draw(&model.encode(&x)?, None, &mut noise)?.value;
    let both = Tensor::f_cat(&[x, model.decode(&codes)?.f_sigmoid()?], 0)?;
    grid(&both, 8, &dir.join("reconstructions.png"))
}

/// Images `[N, 784]` in [0, 1] as a grid of `columns`, written as an 8-bit grey PNG.
fn grid(images: &Tensor, columns: i64, path: &Path) -> Result<()> {
    let rows = images.size()[0] / columns;
    let pixels = images
        .f_view([rows, columns, SIDE, SIDE])?
        .f_permute([0, 2, 1, 3])?
        .f_reshape([-1])?
        .f_mul_scalar(255.0)?
        .f_round()?
        .f_to_kind(Kind::Uint8)?
        .f_to_device(tch::Device::Cpu)?;
    let bytes: Vec<u8> = Vec::try_from(&pixels)?;
    let aside = path.with_extension("png.tmp");
    let file = std::fs::File::create(&aside).map_err(Error::io(&aside))?;
    let mut encoder = png::Encoder::new(BufWriter::new(file), (columns * SIDE) as u32, (rows * SIDE) as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    let failed = |e: png::EncodingError| Error::Io { path: path.into(), source: std::io::Error::other(e) };
    encoder.write_header().and_then(|mut w| w.write_image_data(&bytes)).map_err(failed)?;
    std::fs::rename(&aside, path).map_err(Error::io(path))
}
