/* ==== pictures: storage ==== */

/** Decoded pictures, the latest used last; what is over the budget of pixels is closed, oldest first. */
const bitmaps = { budget: 48e6, list: new Map() };

function picture(index) {
  const known = bitmaps.list.get(index);
  bitmaps.list.delete(index);
  const decoded = known ?? decode(index);
  bitmaps.list.set(index, decoded);
  if (!known) decoded.then(trim, () => bitmaps.list.delete(index));
  return decoded;
}

function bytes(index) {
  const binary = atob($(`picture-${index}`).textContent);
  const data = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) data[i] = binary.charCodeAt(i);
  return new Blob([data], { type: pictures[index].mime });
}

// Pixels as they are in the file, since the error map computes with them.
const decode = (index) => createImageBitmap(bytes(index), { colorSpaceConversion: "none", premultiplyAlpha: "none" });

async function trim() {
  let pixels = 0;
  for (const [place, [index, promise]] of [...bitmaps.list].reverse().entries()) {
    const bitmap = await promise.catch(() => null);
    pixels += bitmap ? bitmap.width * bitmap.height : 0;
    // Three may be on the stage at once: left, right and the original for the error map.
    if (bitmap && place >= 3 && pixels > bitmaps.budget && bitmaps.list.get(index) === promise) {
      bitmaps.list.delete(index);
      bitmap.close();
    }
  }
}
