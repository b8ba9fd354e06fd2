//! The network of Appendix C.2: eight convolutions of binary units without padding, and a linear head.
use tch::{Device, Kind, Tensor};
use thruway::data::cifar10::SIDE;
use thruway::error::Result;
use thruway::sbn::{Carrier, Description, Network, Spec};

/// (kernel, stride, output channels in units of the first layer's).
const LAYERS: [(i64, i64, i64); 8] =
    [(3, 1, 1), (3, 1, 1), (3, 2, 1), (3, 1, 2), (3, 1, 2), (3, 2, 2), (3, 1, 2), (1, 1, 2)];

/// A network for images `[B, 3, 32, 32]`, fresh from libtorch's CPU generator and not yet whitened. With 96 channels it is
/// the paper's: sides 30, 28, 13, 11, 9, 4, 2, 2, a head of 768 x 10, 1,375,498 parameters.
pub fn new(channels: i64, device: Device) -> Result<Network> {
    let layer = |(kernel, stride, factor): (i64, i64, i64)| Spec::conv(factor * channels, kernel, stride, 0);
    let description =
        Description { input: vec![3, SIDE, SIDE], layers: LAYERS.map(layer).to_vec(), ..Description::default() };
    Network::new(&description, Kind::Float, device)
}

/// A network whose pre-activations are whitened on a batch of images in [0, 1].
pub fn whitened(channels: i64, images: &Tensor, carrier: Carrier, device: Device) -> Result<Network> {
    let network = new(channels, device)?;
    network.whiten(images, carrier)?;
    Ok(network)
}
