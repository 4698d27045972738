"""Prompts to record with where the user brings none: subjects, motion, light and styles that differ."""

from __future__ import annotations

PROMPTS: tuple[str, ...] = (
    "A red fox trots through fresh snow at dawn, low sun behind bare birches",
    "Macro shot of rain drops running down a green leaf",
    "An old fisherman mends a net on a wooden pier, gulls circling behind him",
    "A crowded night market under paper lanterns, steam rising from the stalls",
    "A paper boat drifts along a gutter after a storm",
    "A white sailing boat crosses a calm bay, seen from above",
    "Two children fly a kite on a windy hill, watercolour style",
    "A steam train leaves a mountain tunnel, smoke against dark pines",
    "Close-up of a clockmaker's hands setting a tiny brass gear",
    "A jellyfish pulses in deep blue water, light falling from above",
    "A city street in heavy rain, neon signs mirrored on the asphalt",
    "A potter shapes a tall vase on a spinning wheel",
    "A field of sunflowers turning in time-lapse under moving clouds",
    "A small robot waters plants on a balcony, soft evening light",
    "An astronaut walks slowly across red dunes towards a silver dome",
    "A black cat jumps from a bookshelf onto a velvet chair",
    "Molten glass drawn out into a long glowing thread",
    "A dancer in a long yellow dress turns on an empty stage",
    "Waves break against a lighthouse at night, beam sweeping through spray",
    "A bowl of ramen, noodles lifted with chopsticks, steam curling up",
    "A stop-motion clay snail crosses a mossy log",
    "A herd of horses gallops over a dry plain, dust glowing in the backlight",
    "A library with tall shelves, a page turning by itself, oil painting",
    "A hot-air balloon rises over terraced rice fields in morning fog",
)
