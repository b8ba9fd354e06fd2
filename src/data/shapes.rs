//! Generated colour images, where a real set cannot be had: one shape an image, ten kinds of shape, on a background with
//! noise. Kind, place, size and colours are drawn by a generator of the module's own in plain arithmetic, so that the images
//! are the same on every machine and image i of a stream depends on nothing else.
use super::cifar10::BYTES;

/// Images `n * 3072` bytes (planes of 32x32, red, green, blue) and their kinds 0..=9; kinds alternate. `stream` 0 is for
/// training, 1 for testing.
pub fn generate(n: usize, stream: u64) -> (Vec<u8>, Vec<i64>) {
    let mut pixels = vec![0; n * BYTES];
    for (i, image) in pixels.chunks_exact_mut(BYTES).enumerate() {
        let mut random = Random(scramble(scramble(stream + 1).wrapping_add(i as u64)));
        draw(i % 10, image, &mut random);
    }
    (pixels, (0..n).map(|i| (i % 10) as i64).collect())
}

fn draw(kind: usize, image: &mut [u8], random: &mut Random) {
    let background: [f32; 3] = std::array::from_fn(|_| random.between(30.0, 225.0));
    // at least 60 levels away from the background in every channel, on the roomier side
    let ink =
        background.map(|b| if b < 128.0 { b + random.between(60.0, 100.0) } else { b - random.between(60.0, 100.0) });
    let (x0, y0, r) = (random.between(12.0, 20.0), random.between(12.0, 20.0), random.between(7.0, 11.0));
    let phase = random.between(0.0, 6.0);
    for y in 0..32 {
        for x in 0..32 {
            let (u, v) = (x as f32 - x0, y as f32 - y0);
            let inside = covers(kind, u / r, v / r, (x as f32 + phase, y as f32 + phase));
            for channel in 0..3 {
                let level = if inside { ink[channel] } else { background[channel] };
                image[channel * 1024 + y * 32 + x] = (level + random.between(-20.0, 20.0)).clamp(0.0, 255.0) as u8;
            }
        }
    }
}

/// Whether a shape covers the point (u, v), in units of its radius from its centre; `at` is the pixel, for what fills stripes.
fn covers(kind: usize, u: f32, v: f32, at: (f32, f32)) -> bool {
    let (a, b) = (u.abs(), v.abs());
    let within = a <= 1.0 && b <= 1.0;
    let odd = |t: f32| (t / 3.0) as i32 % 2 == 1;
    match kind {
        0 => u * u + v * v <= 1.0,                    // disc
        1 => within,                                  // square
        2 => within && 2.0 * a <= v + 1.0,            // triangle
        3 => within && a.min(b) <= 0.3,               // plus
        4 => (0.45..=1.0).contains(&(u * u + v * v)), // ring
        5 => a + b <= 1.0,                            // diamond
        6 => within && odd(at.1),                     // horizontal stripes
        7 => within && odd(at.0),                     // vertical stripes
        8 => within && (odd(at.0) != odd(at.1)),      // chequers
        _ => within && (a - b).abs() <= 0.3,          // saltire
    }
}

/// SplitMix64 (Steele, Lea & Flood 2014).
pub(super) struct Random(u64);

fn scramble(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Random {
    /// A stream that depends on `seed` alone.
    pub(super) fn new(seed: u64) -> Self {
        Random(scramble(seed))
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        scramble(self.0)
    }

    fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * ((self.bits() >> 40) as f32 / (1u64 << 24) as f32)
    }

    /// In [0, 1).
    pub(super) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform on 0..n, n far below 2^32.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        ((self.bits() >> 32) * n) >> 32
    }
}
