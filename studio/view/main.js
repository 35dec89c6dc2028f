// The page's start.

import {Studio} from "./studio.js";

void new Studio().connect();
